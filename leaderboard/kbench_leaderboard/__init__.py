"""The static leaderboard (the site comes with a later version) and published figures."""
