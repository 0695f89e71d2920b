"""The relations of FewRel in words: their names in Wikidata, and a statement of each.

The data call relations by ids. The names are those that come with the data (``pid2name.json``,
MIT); the statements are ours.
"""

from __future__ import annotations

from collections.abc import Mapping

from kbench.data import NONE_OF_THE_ABOVE, Prompt

__all__ = ["NAMED", "STATED"]


_RELATIONS: Mapping[str, tuple[str, str]] = {
    "P6": ("head of government", "{tail} is the head of government of {head}."),
    "P17": ("country", "{head} is in the country {tail}."),
    "P22": ("father", "{tail} is the father of {head}."),
    "P25": ("mother", "{tail} is the mother of {head}."),
    "P26": ("spouse", "{head} is married to {tail}."),
    "P27": ("country of citizenship", "{head} is a citizen of {tail}."),
    "P31": ("instance of", "{head} is a {tail}."),
    "P39": ("position held", "{head} holds the position of {tail}."),
    "P40": ("child", "{tail} is a child of {head}."),
    "P57": ("director", "{head} was directed by {tail}."),
    "P58": ("screenwriter", "{head} was written for the screen by {tail}."),
    "P59": ("constellation", "{head} is in the constellation {tail}."),
    "P84": ("architect", "{head} was built by the architect {tail}."),
    "P86": ("composer", "{head} was composed by {tail}."),
    "P101": ("field of work", "{head} works in the field of {tail}."),
    "P102": ("member of political party", "{head} is a member of the party {tail}."),
    "P105": ("taxon rank", "{head} has the taxonomic rank of {tail}."),
    "P106": ("occupation", "{head} works as a {tail}."),
    "P118": ("league", "{head} plays in the league {tail}."),
    "P123": ("publisher", "{head} was published by {tail}."),
    "P127": ("owned by", "{head} is owned by {tail}."),
    "P131": (
        "located in the administrative territorial entity",
        "{head} is located in the district of {tail}.",
    ),
    "P135": ("movement", "{head} belongs to the movement of {tail}."),
    "P136": ("genre", "{head} is of the genre {tail}."),
    "P137": ("operator", "{head} is operated by {tail}."),
    "P140": ("religion", "{head} is of the religion {tail}."),
    "P150": (
        "contains administrative territorial entity",
        "{head} is divided into districts, one of which is {tail}.",
    ),
    "P155": ("follows", "{head} follows {tail}."),
    "P156": ("followed by", "{head} is followed by {tail}."),
    "P159": ("headquarters location", "{head} has its headquarters in {tail}."),
    "P175": ("performer", "{head} is performed by {tail}."),
    "P176": ("manufacturer", "{head} is made by the manufacturer {tail}."),
    "P177": ("crosses", "{head} crosses {tail}."),
    "P178": ("developer", "{head} was developed by {tail}."),
    "P206": ("located in or next to body of water", "{head} lies on the waters of {tail}."),
    "P241": ("military branch", "{head} served in the military branch {tail}."),
    "P264": ("record label", "{head} is on the record label {tail}."),
    "P276": ("location", "{head} takes place in {tail}."),
    "P306": ("operating system", "{head} runs on the operating system {tail}."),
    "P355": ("subsidiary", "{tail} is a subsidiary of {head}."),
    "P361": ("part of", "{head} is a part of {tail}."),
    "P364": (
        "original language of film or TV show",
        "{head} was filmed in the language {tail}.",
    ),
    "P400": ("platform", "{head} was released for the platform {tail}."),
    "P403": ("mouth of the watercourse", "{head} flows into {tail}."),
    "P407": ("language of work or name", "{head} is in the language {tail}."),
    "P410": ("military rank", "{head} has the military rank of {tail}."),
    "P412": ("voice type", "{head} sings with the voice of a {tail}."),
    "P413": ("position played on team", "{head} plays in the position of {tail}."),
    "P449": ("original network", "{head} was first broadcast on the network {tail}."),
    "P460": ("said to be the same as", "{head} is said to be the same as {tail}."),
    "P463": ("member of", "{head} is a member of {tail}."),
    "P466": ("occupant", "{head} is occupied by {tail}."),
    "P495": ("country of origin", "{head} comes from the country {tail}."),
    "P527": ("has part", "{head} consists of {tail} and others."),
    "P551": ("residence", "{head} lives in {tail}."),
    "P641": ("sport", "{head} is known in the sport of {tail}."),
    "P674": ("characters", "{tail} is a character in {head}."),
    "P706": ("located on terrain feature", "{head} lies on the terrain of {tail}."),
    "P710": ("participant", "{tail} took part in {head}."),
    "P740": ("location of formation", "{head} was formed in {tail}."),
    "P750": ("distributor", "{head} is distributed by {tail}."),
    "P800": ("notable work", "{head} is known for the work {tail}."),
    "P921": ("main subject", "{head} is about {tail}."),
    "P931": ("place served by transport hub", "{head} serves passengers to and from {tail}."),
    "P937": ("work location", "{head} works in the town of {tail}."),
    "P974": ("tributary", "{tail} is a tributary of {head}."),
    "P991": ("successful candidate", "{head} was an election won by {tail}."),
    "P1001": ("applies to jurisdiction", "{head} has its jurisdiction in {tail}."),
    "P1303": ("instrument", "{head} plays the instrument {tail}."),
    "P1344": ("participant of", "{head} took part in {tail}."),
    "P1346": ("winner", "{head} was won by {tail}."),
    "P1408": ("licensed to broadcast to", "{head} is licensed to broadcast to {tail}."),
    "P1411": ("nominated for", "{head} was nominated for {tail}."),
    "P1435": ("heritage designation", "{head} is protected as {tail}."),
    "P1877": ("after a work by", "{head} is based on a work by {tail}."),
    "P1923": ("participating team", "{tail} is a team that took part in {head}."),
    "P2094": ("competition class", "{head} competes in the class {tail}."),
    "P3373": ("sibling", "{head} is a sibling of {tail}."),
    "P3450": (
        "sports season of league or competition",
        "{head} is a season of {tail}.",
    ),
    "P4552": ("mountain range", "{head} is in the mountain range {tail}."),
}

_PUBMED: Mapping[str, str] = {
    "biological_process_involves_gene_product": "{head} involves the gene product {tail}.",
    "causative_agent_of": "{head} causes {tail}.",
    "classified_as": "{head} is classified as {tail}.",
    "gene_found_in_organism": "{head} is a gene found in the organism {tail}.",
    "gene_plays_role_in_process": "{head} is a gene that plays a role in {tail}.",
    "ingredient_of": "{head} is an ingredient of {tail}.",
    "inheritance_type_of": "{head} is the type of inheritance of {tail}.",
    "is_normal_tissue_origin_of_disease": "{head} is the tissue in which {tail} begins.",
    "is_primary_anatomic_site_of_disease": "{head} is the main site of the disease {tail}.",
    "occurs_in": "{head} occurs in {tail}.",
}
"""Of the relations of FewRel 2.0, which have words for names."""

NAMED = Prompt(
    "{text} The relation between {head} and {tail} is",
    nothing="The relation between them is",
    words={label: name for label, (name, _) in _RELATIONS.items()},
)
"""A model is asked which name of a relation comes next."""
STATED = Prompt(
    "{text}",
    words=NAMED.words,
    statements={
        **{label: says for label, (_, says) in _RELATIONS.items()},
        **_PUBMED,
        NONE_OF_THE_ABOVE: "{head} is related to {tail} in none of these ways.",
    },
)
"""A model is asked which statement comes next."""
