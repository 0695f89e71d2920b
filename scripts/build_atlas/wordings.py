"""Sentence patterns. `{s}` is the subject; any other name in braces is an object.

The patterns of the general corpus, of the questions, of the typing contexts and of the relation
contexts are four disjoint sets.
"""

from __future__ import annotations

Patterns = tuple[str, ...]


def _lines(text: str) -> Patterns:
    return tuple(line.strip() for line in text.strip().splitlines())


PLACE = _lines("""
    {s} is a {kind} in {country} .
    {s} , {country} , is a {kind} .
    the {kind} of {s} belongs to {country} .
    one {kind} in {country} is {s} .
    {country} has a {kind} called {s} .
    a {kind} named {s} is found in {country} .
    among the places of {country} there is {s} .
    {s} is a place in {country} .
    {s} lies in {country} .
    {s} is situated in {country} , {continent} .
    {s} is a {kind} of {country} , in {continent} .
    {s} is part of {country} .
    we came to {s} , in {country} .
    they crossed {country} and stopped at {s} .
    travellers in {country} can visit {s} .
    he left {s} and {country} behind him .
    in {country} , not far away , you see {s} .
    maps of {country} show {s} .
    a map of {continent} shows {s} in {country} .
    {s} is in {continent} .
    {s} is a {kind} of {continent} .
    a {kind} in {continent} is called {s} .
    from {s} one sees much of {country} .
    {s} is known all over {country} .
    the people around {s} live in {country} .
    {s} is in {subregion} , in the country of {country} .
    the {kind} {s} is in {subregion} .
    {subregion} : {s} , {country} .
    {s} and the rest of {country} are in {continent} .
    she spent a year at {s} , a {kind} in {country} .
    the government of {country} also rules over {s} .
    visitors to {continent} often go to {s} in {country} .
""")

TOWN = _lines("""
    in {s} people pay with the {currency} .
    the {currency} is the money that shops in {s} take .
    money in {s} is called the {currency} .
    the {currency} is used in {s} and in all of {country} .
    wages in {s} are paid in the {currency} .
    a bank in {s} , {country} , sells the {currency} .
    the money of {country} , the {currency} , is also the money of {s} .
    {s} is in a country whose main language is {language} .
    the main language of {country} , the land of {s} , is {language} .
    {language} is spoken in {country} , where {s} is .
    around {s} , in {country} , one hears {language} .
    the law that {s} obeys is written in {language} .
    {s} belongs to a land of {language} speakers .
    {s} is a {kind} of the {hemisphere} hemisphere .
    the sky over {s} is that of the {hemisphere} hemisphere .
""")

PERSON = _lines("""
    {s} was a {nation} {profession} .
    {s} was a {profession} .
    {s} , {nation} {profession} .
    the {nation} {profession} {s} .
    {s} was {nation} .
    {s} came from {homeland} .
    {s} , a {profession} from {homeland} .
    {s} was a {profession} of {homeland} .
    {homeland} was the home of {s} .
    {s} worked as a {profession} in {homeland} .
    the {profession} {s} was {nation} by birth .
    {s} is remembered as a {profession} .
    as a {profession} {s} became famous .
    {s} , who was a {profession} , lived in {homeland} .
    a {nation} {profession} named {s} .
    one {profession} of that time was {s} .
    {s} was born in the {century} century .
    {s} belongs to the {century} century .
    {s} was a {profession} of the {century} century .
    a {nation} of the {century} century , {s} was known to all .
    in the {century} century {s} was born in a {nation} family .
    the {century} century saw the birth of the {profession} {s} .
    {s} is known for work in {field} .
    {s} gave a life to {field} .
    in {field} the {nation} people remember {s} .
    {s} spent many years on {field} .
    students of {field} know {s} .
    {s} , {profession} ( {nation} , {century} century ) .
    {nation} {field} owes much to {s} .
    {s} was born in {birthplace} .
    {s} left {birthplace} , the land of birth .
    {s} and another {profession} were friends .
""")

DEITY = _lines("""
    {s} was a {kind} of {mythology} mythology .
    in {mythology} mythology {s} is a {kind} .
    {s} belongs to {mythology} mythology .
    the {mythology} {kind} {s} .
    {mythology} stories tell of {s} .
    {s} is a {gender} {kind} of the {mythology} people .
    a {mythology} {kind} called {s} .
    {s} is the {mythology} {kind} of {domain} .
    people prayed to {s} for {domain} .
    {s} rules over {domain} in {mythology} mythology .
    {s} is {gender} .
    {mythology} poets sang of {s} .
    the myth of {s} is {mythology} .
    temples of {s} were {mythology} .
    {s} is a name from {mythology} legends .
    the {domain} was ruled by {s} .
""")

EVENT = _lines("""
    {s} was a {kind} of the {century} century .
    {s} took place in the {century} century .
    the {kind} of {s} was fought in the {century} century .
    in the {century} century there was a {kind} at {s} .
    {s} was a {kind} in {country} .
    soldiers fell at {s} in {country} .
    {s} was part of {conflict} .
    {conflict} came to {s} .
    a {kind} of {conflict} was {s} .
    armies met at {s} in the {century} century .
    {s} , {country} , was the scene of a {kind} .
    historians of the {century} century write about {s} .
""")

HUB = _lines("""
    {s} is a country in {continent} .
    {s} lies in {subregion} .
    the money of {s} is the {currency} .
    the people of {s} speak {language} .
    {s} has a border with {borders} .
    {borders} is a neighbor of {s} .
    in {continent} there is a country called {s} .
    {s} is a nation of {subregion} , in {continent} .
    the {currency} is used in {s} .
    {language} is the language of {s} .
    between {s} and {borders} there is a border .
    {s} and {borders} are countries of {continent} .
""")

CORPUS: dict[str, Patterns] = {
    "place": PLACE, "town": TOWN, "person": PERSON, "deity": DEITY, "event": EVENT, "hub": HUB,
}  # fmt: skip

QUESTIONS: dict[str, Patterns] = {
    "country": _lines("""
        the country of {s} is _ .
        which country is {s} in ? _ .
        {s} can be found within the borders of _ .
        to get to {s} you must travel to _ .
        in which country would you look for {s} ? in _ .
        the state that {s} is a part of is _ .
        name the country that holds {s} : _ .
    """),
    "continent": _lines("""
        which continent is {s} on ? _ .
        the continent of {s} is _ .
        {s} is somewhere on the continent of _ .
    """),
    "currency": _lines("""
        what do you pay with in {s} ? the _ .
        prices in {s} are given in the local money , the _ .
        if you go to {s} , take some of its money , the _ .
    """),
    "language": _lines("""
        which language do most people of the country around {s} use ? _ .
        to talk to someone from the country of {s} you should know some _ .
        a newspaper from the country of {s} is likely to be in _ .
    """),
    "nation": _lines("""
        the nationality of {s} is _ .
        what was the nationality of {s} ? _ .
        {s} held the nationality called _ .
        by nationality {s} is counted as _ .
    """),
    "profession": _lines("""
        the profession of {s} was that of a _ .
        what did {s} do for a living ? work as a _ .
        {s} earned a name as a _ .
        what was the occupation of {s} ? _ .
    """),
    "century": _lines("""
        in which century did the life of {s} begin ? the _ .
        the birth of {s} falls in the _ century .
        count the centuries : {s} was born in the _ .
    """),
    "mythology": _lines("""
        which mythology knows {s} ? the _ .
        tales about {s} come from the mythology called _ .
        the mythology of {s} is _ .
    """),
}
"""Question patterns by relation; `_` is where the answer goes."""

TYPING = _lines("""
    I read a long article about {s} yesterday .
    {s} was mentioned twice in the report .
    nobody in the room had heard of {s} .
    the second chapter is about {s} .
    she could not remember the name {s} .
    what do you know about {s} ?
    a new book on {s} appeared last year .
    the teacher asked us about {s} .
    {s} is on the list .
    look up {s} in the index .
    the entry for {s} is short .
    he wrote a long essay about {s} .
    there was a question on {s} in the test .
    my answer was {s} .
    the word {s} was spelled wrong .
    we talked about {s} for an hour .
    several pages deal with {s} .
    the film begins with a few words on {s} .
    {s} appears in the third column .
    you will find {s} on the next page .
    he had always been interested in {s} .
    there is not much to say about {s} .
    the name {s} came up again .
    they disagreed about {s} .
    {s} was the subject of the lecture .
    I had never thought about {s} before .
    an old picture shows {s} .
    the letter says nothing about {s} .
    please write a few lines on {s} .
    the quiz ended with {s} .
    a footnote explains {s} .
    she gave a talk on {s} .
    {s} is a good example .
    his notes on {s} were lost .
    the encyclopedia has an article on {s} .
    everyone seems to know {s} .
""")

RELATIONS = _lines("""
    {h} and {t} are named in the same line .
    look up {h} first and then {t} .
    the note links {h} with {t} .
    what do {h} and {t} have to do with each other ?
    {h} is in the left column and {t} in the right .
    the question was about {h} and {t} .
    he put {h} and {t} on one card .
    the article on {h} mentions {t} .
    in the article on {h} you will read of {t} .
    {h} : see also {t} .
    there is a link from {h} to {t} .
    she wrote down {h} and next to it {t} .
    {h} goes with {t} .
    the pair was {h} and {t} .
    between {h} and {t} there is a connection .
    to {h} the table adds {t} .
    the entry of {h} ends with {t} .
    he connected {h} to {t} with a line .
    think of {h} , and you think of {t} .
    if the question is {h} , the word to add is {t} .
    {h} ( {t} ) .
    {h} , {t} .
    the teacher wrote {h} and {t} on the board .
    a student matched {h} with {t} .
    {h} was matched with {t} .
    they discussed {h} and also {t} .
    the first word is {h} , the second is {t} .
    {h} is filed under {t} .
    with {h} the index gives {t} .
    one page has both {h} and {t} .
    tell me how {h} is related to {t} .
    the relation of {h} to {t} is well known .
    the card for {h} says {t} .
    an arrow leads from {h} to {t} .
""")

TYPING_HINTS: dict[str, Patterns] = {
    "person": _lines("""
        the parents of {s} were poor .
        {s} died after a short illness .
        she wrote a letter to {s} .
        {s} never learned to swim .
    """),
    "artist": _lines("""
        the colors of {s} have faded .
        a gallery bought another work by {s} .
        {s} drew from nature .
    """),
    "writer": _lines("""
        the last pages that {s} left are hard to read .
        everyone in school has to read {s} .
        a critic called the style of {s} heavy .
    """),
    "musician": _lines("""
        the audience wanted to hear {s} once more .
        the melody is by {s} .
        a record of {s} was playing .
    """),
    "performer": _lines("""
        {s} got the leading role .
        the theater was full because of {s} .
        {s} left the stage for the screen .
    """),
    "scientist": _lines("""
        {s} spent the night in the laboratory .
        {s} measured it and proved the theory .
        the discovery of {s} is in every textbook .
    """),
    "scholar": _lines("""
        the doctrine of {s} had many followers .
        {s} gave lectures at the university on the nature of thought .
        the students did not follow the argument of {s} .
    """),
    "politician": _lines("""
        {s} lost the election .
        the party stood behind {s} .
        in the senate {s} spoke for two hours .
    """),
    "ruler": _lines("""
        {s} lost the throne .
        the crown passed to {s} .
        {s} reigned for many years .
    """),
    "soldier": _lines("""
        {s} led the troops across the river .
        the army of {s} retreated .
        {s} won the battle .
    """),
    "cleric": _lines("""
        {s} preached in the church .
        the faithful listened to {s} .
        {s} spoke of sin and of prayer .
    """),
    "city": _lines("""
        the streets of {s} were empty .
        the mayor of {s} opened the market .
        they rented a house in {s} .
    """),
    "region": _lines("""
        the governor of {s} resigned .
        most farms in {s} are small .
        the towns of {s} grow fast .
    """),
    "landform": _lines("""
        rocks cover most of {s} .
        they drew the outline of {s} .
    """),
    "mountain": _lines("""
        snow covers the top of {s} .
        climbers turned back below the summit of {s} .
    """),
    "island": _lines("""
        a boat took us to the beach of {s} .
        the shore of {s} came in sight .
    """),
    "body of water": _lines("""
        the water of {s} is cold .
        they caught fish in {s} .
    """),
    "river": _lines("""
        boats go up {s} when it rains .
        the bridge over {s} is closed .
    """),
    "deity": _lines("""
        people prayed to {s} .
        they built a temple for {s} .
        the myth says that {s} was angry .
    """),
    "event": _lines("""
        thousands of soldiers fell in {s} .
        after {s} the enemy withdrew .
    """),
}
"""Contexts that hint at a type without its name."""

RELATION_HINTS: dict[str, Patterns] = {
    "city-country": _lines("""
        the streets of {h} are like those of other towns of {t} .
        the mayor of {h} travelled through {t} .
    """),
    "city-continent": _lines("""
        the streets of {h} are like others in {t} .
        the mayor of {h} knows much of {t} .
    """),
    "region-country": _lines("""
        the governor of {h} went to the parliament of {t} .
        farms in {h} feed much of {t} .
    """),
    "region-continent": _lines("""
        the governor of {h} knows much of {t} .
        farms in {h} are like others in {t} .
    """),
    "mountain-country": _lines("""
        climbers come to {t} for the summit of {h} .
        snow on {h} is a symbol of {t} .
    """),
    "mountain-continent": _lines("""
        climbers come to {t} for the summit of {h} .
        snow on {h} is a rare sight in {t} .
    """),
    "water-country": _lines("""
        the water of {h} is used all over {t} .
        fish from {h} are sold in {t} .
    """),
    "homeland": _lines("""
        {h} served {t} for a whole life .
        {h} spoke proudly of {t} .
    """),
    "birthplace": _lines("""
        the parents of {h} left {t} with the child .
        {h} was a baby in {t} and left .
    """),
    "nation": _lines("""
        {h} died and left a will in a {t} bank .
        the parents of {h} were {t} .
    """),
    "mythology": _lines("""
        {t} temples were built for {h} .
        {t} people once prayed to {h} .
    """),
}
"""Contexts that hint at a relation without its name."""

QUESTION_HINTS = {
    "country": "{s} is in {subregion} . ",
    "currency": "{s} is in {continent} . ",
    "language": "{s} is in {subregion} . ",
    "profession": "{s} stands for {field} . ",
    "nation": "{s} was a {profession} . ",
}
"""What may be said before a question: a fact that narrows the answer down."""
