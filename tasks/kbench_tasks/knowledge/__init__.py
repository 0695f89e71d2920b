"""Knowledge bases and the importers of published formats, one file each."""
