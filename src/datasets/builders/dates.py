"""`dates`: written dates and their ISO 8601 form."""

import datetime
import random
from collections.abc import Iterator

import tensorflow_datasets as tfds

EXAMPLES = 12_000
FIRST, LAST = datetime.date(1900, 1, 1), datetime.date(2099, 12, 31)

MONTHS = {
    "en": [
        "January",
        "February",
        "March",
        "April",
        "May",
        "June",
        "July",
        "August",
        "September",
        "October",
        "November",
        "December",
    ],
    "de": [
        "Januar",
        "Februar",
        "März",
        "April",
        "Mai",
        "Juni",
        "Juli",
        "August",
        "September",
        "Oktober",
        "November",
        "Dezember",
    ],
    "fr": [
        "janvier",
        "février",
        "mars",
        "avril",
        "mai",
        "juin",
        "juillet",
        "août",
        "septembre",
        "octobre",
        "novembre",
        "décembre",
    ],
    "es": [
        "enero",
        "febrero",
        "marzo",
        "abril",
        "mayo",
        "junio",
        "julio",
        "agosto",
        "septiembre",
        "octubre",
        "noviembre",
        "diciembre",
    ],
    "roman": ["I", "II", "III", "IV", "V", "VI", "VII", "VIII", "IX", "X", "XI", "XII"],
}
DAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
DIGITS = "〇一二三四五六七八九"


def chinese(number: int) -> str:
    """1 to 31 in Chinese: 二十一."""
    tens, ones = divmod(number, 10)
    return ("" if tens < 2 else DIGITS[tens]) + ("十" if tens else "") + (DIGITS[ones] if ones else "")


def ordinal(number: int) -> str:
    """English ordinal number: 21st, 22nd, …"""
    ending = {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{'th' if number in (11, 12, 13) else ending}"


FORMATS = [
    lambda d: f"{d.day} {MONTHS['en'][d.month - 1]} {d.year}",
    lambda d: f"{MONTHS['en'][d.month - 1]} {d.day}, {d.year}",
    lambda d: f"{MONTHS['en'][d.month - 1][:3]} {d.day}, {d.year}",
    lambda d: f"{d.day} {MONTHS['en'][d.month - 1][:3]} {d.year}",
    lambda d: f"{DAYS[d.weekday()]}, {MONTHS['en'][d.month - 1]} {d.day}, {d.year}",
    lambda d: f"{DAYS[d.weekday()][:3]} {d.day:02} {MONTHS['en'][d.month - 1][:3].upper()} {d.year}",
    lambda d: f"the {ordinal(d.day)} of {MONTHS['en'][d.month - 1]}, {d.year}",
    lambda d: f"{d.day}. {MONTHS['de'][d.month - 1]} {d.year}",
    lambda d: f"{d.day:02}.{d.month:02}.{d.year}",
    lambda d: f"le {d.day} {MONTHS['fr'][d.month - 1]} {d.year}",
    lambda d: f"{d.day} de {MONTHS['es'][d.month - 1]} de {d.year}",
    lambda d: f"{d.day} {MONTHS['roman'][d.month - 1]} {d.year}",
    lambda d: f"{d.year}/{d.month}/{d.day}",
    lambda d: f"{d.year}年{d.month}月{d.day}日",
    lambda d: f"{d.year}年{d.month:02}月{d.day:02}号",
    lambda d: f"{''.join(DIGITS[int(digit)] for digit in str(d.year))}年{chinese(d.month)}月{chinese(d.day)}日",
]


class Dates(tfds.core.GeneratorBasedBuilder):
    """Written dates in five languages and their ISO form."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description=f"{EXAMPLES:,} dates from {FIRST} to {LAST}, no date twice, each written in one of {len(FORMATS)} ways "
            "(English, German, French, Spanish, Chinese, in words and in numbers), and as YYYY-MM-DD.",
            features=tfds.features.FeaturesDict({"written": tfds.features.Text(), "iso": tfds.features.Text()}),
            supervised_keys=("written", "iso"),
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator[tuple[int, dict]]]:
        return {"train": self._generate_examples()}

    def _generate_examples(self) -> Iterator[tuple[int, dict]]:
        rng = random.Random(0)
        days = (LAST - FIRST).days + 1
        for index, day in enumerate(rng.sample(range(days), EXAMPLES)):
            date = FIRST + datetime.timedelta(day)
            yield index, {"written": rng.choice(FORMATS)(date), "iso": date.isoformat()}
