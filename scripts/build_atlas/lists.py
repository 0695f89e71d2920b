"""Small closed lists that the builders read sentences and codes with."""

from __future__ import annotations

NATIONS = {
    "american": "US", "english": "GB", "british": "GB", "scottish": "GB", "welsh": "GB",
    "irish": "IE", "french": "FR", "german": "DE", "italian": "IT", "spanish": "ES",
    "russian": "RU", "soviet": "RU", "austrian": "AT", "greek": "GR", "roman": "",
    "dutch": "NL", "flemish": "BE", "belgian": "BE", "swiss": "CH", "swedish": "SE",
    "norwegian": "NO", "danish": "DK", "polish": "PL", "hungarian": "HU", "czech": "CZ",
    "canadian": "CA", "chinese": "CN", "japanese": "JP", "indian": "IN", "mexican": "MX",
    "israeli": "IL", "egyptian": "EG", "portuguese": "PT", "finnish": "FI",
    "argentine": "AR", "chilean": "CL", "cuban": "CU", "australian": "AU", "persian": "IR",
    "iranian": "IR", "turkish": "TR", "hebrew": "", "jewish": "", "arab": "",
    "bohemian": "", "prussian": "", "venetian": "", "florentine": "",
    "peruvian": "PE", "colombian": "CO", "brazilian": "BR", "south african": "ZA",
    "babylonian": "", "macedonian": "", "byzantine": "", "frankish": "",
    "romanian": "RO", "serbian": "RS", "icelandic": "IS", "venezuelan": "VE",
    "pakistani": "PK", "vietnamese": "VN", "korean": "KR", "mongolian": "MN",
    "carthaginian": "", "norman": "", "mongol": "", "lebanese": "LB", "nigerian": "NG",
}  # fmt: skip
"""Word for a nation in glosses -> ISO code of the country today, or nothing."""

_PROFESSIONS = """
artist visual-arts: painter sculptor architect photographer designer engraver cartoonist illustrator
 lithographer etcher silversmith potter
writer literature: writer novelist poet dramatist essayist journalist biographer satirist
 critic translator lexicographer humorist diarist
musician music: composer singer pianist violinist conductor songwriter guitarist trumpeter
 saxophonist soprano tenor musician cellist drummer organist lyricist librettist bandleader
performer stage: actor actress dancer choreographer comedian filmmaker director comedienne
 entertainer mime magician ballerina producer playwright
scientist science: physicist chemist mathematician astronomer physiologist biologist biochemist
 botanist naturalist geologist anatomist physician surgeon bacteriologist geneticist zoologist
 psychiatrist pathologist neurologist immunologist meteorologist microbiologist embryologist
 scientist astrophysicist logician ornithologist virologist
scholar learning: philosopher historian economist psychologist anthropologist archaeologist
 linguist sociologist educator scholar psychoanalyst classicist orientalist humanist
 archeologist grammarian philologist pedagogue egyptologist
politician politics: statesman politician president diplomat revolutionary reformer senator
 feminist suffragist abolitionist suffragette nationalist activist stateswoman governor
 jurist lawyer judge anarchist conspirator dictator socialist communist patriot
ruler government: king queen emperor empress czar sultan pharaoh tsar prince duke monarch shah
 pope
soldier war: general soldier admiral officer conqueror commander mercenary conquistador
 marshal guerrilla
cleric religion: theologian saint bishop archbishop monk nun prophet apostle missionary
 evangelist cardinal priest preacher martyr clergyman rabbi mystic patriarch friar
 reformer hermit
athlete sport: golfer boxer jockey swimmer sprinter skater athlete quarterback outfielder
 gymnast skier runner racer pitcher prizefighter pugilist
explorer travel: explorer navigator aviator astronaut frontiersman pioneer mountaineer
 aviatrix cosmonaut seaman pirate privateer buccaneer aviator
magnate business: industrialist financier publisher banker businessman manufacturer merchant
 printer philanthropist entrepreneur showman capitalist restaurateur
engineer technology: engineer inventor shipbuilder machinist gunsmith clockmaker metallurgist
"""


def _professions() -> dict[str, tuple[str, str]]:
    table: dict[str, tuple[str, str]] = {}
    group, area = "", ""
    for token in _PROFESSIONS.replace(":", " : ").split("\n"):
        words = token.split()
        if ":" in words:
            group, area = words[:2]
            words = words[3:]
        table.update({word: (group, area.replace("-", " ")) for word in words if word not in table})
    return table


PROFESSIONS = _professions()
"""Profession -> coarse type and field."""

SAME_PROFESSION = {
    "playwright": "dramatist", "author": "writer", "revolutionist": "revolutionary",
    "filmmaker": "director", "film maker": "director", "prizefighter": "boxer",
    "pugilist": "boxer", "archeologist": "archaeologist", "doctor": "physician",
    "tennis player": "athlete", "ballplayer": "athlete", "baseball player": "athlete",
    "basketball player": "athlete", "football player": "athlete", "hockey player": "athlete",
    "jazz musician": "musician", "rock star": "singer", "old master": "painter",
    "theologist": "theologian", "suffragette": "suffragist", "stateswoman": "statesman",
    "aviatrix": "aviator", "tsar": "czar", "clergyman": "priest", "tennis": "athlete",
}  # fmt: skip

CONTINENTS = {
    "AF": "Africa", "AS": "Asia", "EU": "Europe", "NA": "North America",
    "SA": "South America", "OC": "Oceania", "AN": "Antarctica",
}  # fmt: skip

LANGUAGES = {
    "en": "English", "fr": "French", "de": "German", "it": "Italian", "es": "Spanish",
    "pt": "Portuguese", "ru": "Russian", "ar": "Arabic", "zh": "Chinese", "ja": "Japanese",
    "nl": "Dutch", "sv": "Swedish", "no": "Norwegian", "nb": "Norwegian", "da": "Danish",
    "fi": "Finnish", "pl": "Polish", "cs": "Czech", "sk": "Slovak", "hu": "Hungarian",
    "ro": "Romanian", "bg": "Bulgarian", "sr": "Serbian", "hr": "Croatian", "bs": "Bosnian",
    "sl": "Slovenian", "mk": "Macedonian", "sq": "Albanian", "el": "Greek", "tr": "Turkish",
    "uk": "Ukrainian", "be": "Belarusian", "lt": "Lithuanian", "lv": "Latvian",
    "et": "Estonian", "fa": "Persian", "he": "Hebrew", "hi": "Hindi", "ur": "Urdu",
    "bn": "Bengali", "ne": "Nepali", "si": "Sinhalese", "my": "Burmese", "th": "Thai",
    "lo": "Lao", "km": "Khmer", "vi": "Vietnamese", "id": "Indonesian", "ms": "Malay",
    "tl": "Tagalog", "ko": "Korean", "mn": "Mongolian", "ka": "Georgian", "hy": "Armenian",
    "az": "Azerbaijani", "kk": "Kazakh", "uz": "Uzbek", "tk": "Turkmen", "ky": "Kirghiz",
    "tg": "Tajik", "ps": "Pashto", "am": "Amharic", "so": "Somali", "sw": "Swahili",
    "is": "Icelandic", "ga": "Irish", "ht": "Haitian", "rw": "Kinyarwanda", "mt": "Maltese",
}  # fmt: skip

COUNTRY_NAMES = {
    "CZ": "Czech Republic", "NL": "Netherlands", "CD": "Congo", "CI": "Ivory Coast",
    "MK": "Macedonia", "PS": "Palestine", "TL": "Timor", "VA": "Vatican City",
}  # fmt: skip
"""Names that WordNet's text knows, where GeoNames has a longer or newer one."""

ALSO_COUNTRY = {
    "England": "GB", "Scotland": "GB", "Wales": "GB", "Britain": "GB", "Great Britain": "GB",
    "Holland": "NL", "Burma": "MM", "Russian Federation": "RU", "Siberia": "RU",
    "Peoples Republic of China": "CN", "Tibet": "CN", "Sicily": "IT", "Sardinia": "IT",
    "Czechoslovakia": "", "Alaska": "US", "Northern Ireland": "GB", "Hawaii": "US",
}  # fmt: skip

CONFLICTS = {
    "World War II": "Second World War", "World War I": "First World War",
    "American Civil War": "American Civil War", "American Revolution": "American Revolution",
    "Hundred Years' War": "Hundred Years War", "Punic War": "Punic Wars",
    "Napoleonic": "Napoleonic Wars", "Napoleon": "Napoleonic Wars",
    "Crimean War": "Crimean War", "Peloponnesian War": "Peloponnesian War",
    "Wars of the Roses": "Wars of the Roses", "Vietnam War": "Vietnam War",
    "Korean War": "Korean War", "Thirty Years' War": "Thirty Years War",
    "Boer War": "Boer War", "English Civil War": "English Civil War",
    "Spanish-American War": "Spanish American War", "Persia": "Persian Wars",
}  # fmt: skip

DEITY_DOMAINS = [
    "love",
    "war",
    "sun",
    "sea",
    "sky",
    "moon",
    "death",
    "underworld",
    "earth",
    "fertility",
    "wisdom",
    "dawn",
    "agriculture",
    "fire",
    "thunder",
    "storms",
    "rain",
    "light",
    "night",
    "wind",
    "healing",
    "beauty",
    "music",
    "hunting",
    "sleep",
    "justice",
    "fate",
    "vegetation",
    "rivers",
    "water",
    "marriage",
    "birth",
    "youth",
    "peace",
    "victory",
    "weather",
    "wine",
    "harvest",
]

FOCUS = frozenset(
    [
        "IN",
        "BR",
        "DE",
        "RU",
        "CN",
        "FR",
        "IT",
        "MX",
        "JP",
        "AU",
        "ES",
        "PH",
        "CA",
        "UA",
        "TR",
        "IR",
        "RO",
        "PL",
        "BE",
        "AR",
        "CO",
        "PT",
        "MY",
        "TH",
        "PK",
        "NG",
        "ID",
        "HU",
        "VN",
        "CH",
        "FI",
        "DZ",
        "MA",
        "PE",
        "TZ",
        "GR",
        "SE",
        "TN",
        "CL",
        "ET",
        "KE",
        "EG",
        "AT",
        "VE",
        "GT",
        "KZ",
        "IL",
        "DK",
        "CU",
        "UG",
        "HN",
        "IE",
        "AO",
        "SK",
        "MG",
        "BG",
        "BY",
        "AZ",
        "UZ",
        "KH",
        "NO",
        "CM",
        "BD",
        "GH",
        "SN",
        "SY",
    ]
)
"""Countries with many cities and a one-word name that the pre-training text knows."""

US_STATES = [
    "Alabama",
    "Alaska",
    "Arizona",
    "Arkansas",
    "California",
    "Colorado",
    "Connecticut",
    "Delaware",
    "Florida",
    "Hawaii",
    "Idaho",
    "Illinois",
    "Indiana",
    "Iowa",
    "Kansas",
    "Kentucky",
    "Louisiana",
    "Maine",
    "Maryland",
    "Massachusetts",
    "Michigan",
    "Minnesota",
    "Mississippi",
    "Missouri",
    "Montana",
    "Nebraska",
    "Nevada",
    "Ohio",
    "Oklahoma",
    "Oregon",
    "Pennsylvania",
    "Tennessee",
    "Texas",
    "Utah",
    "Vermont",
    "Virginia",
    "Wisconsin",
    "Wyoming",
]
