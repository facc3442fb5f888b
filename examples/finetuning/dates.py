"""Makes examples for `complete`: dates as people write them in eight languages, and the same dates in ISO 8601.

    python examples/finetuning/dates.py --out dates

writes `dates/train.jsonl` (4,500 rows) and `dates/test.jsonl` (500). No date of the test rows is in the training rows.
Only the standard library is used. Dates are from 1950 to 2049, so that a year of two digits has one meaning. In dates
of digits alone the day comes before the month, unless the year comes first.
"""

from __future__ import annotations

import argparse
import json
import random
from datetime import date, timedelta
from pathlib import Path

FIRST, LAST = date(1950, 1, 1), date(2049, 12, 31)

MONTHS = {
    "en": "January February March April May June July August September October November December",
    "de": "Januar Februar März April Mai Juni Juli August September Oktober November Dezember",
    "fr": "janvier février mars avril mai juin juillet août septembre octobre novembre décembre",
    "es": "enero febrero marzo abril mayo junio julio agosto septiembre octubre noviembre diciembre",
    "it": "gennaio febbraio marzo aprile maggio giugno luglio agosto settembre ottobre novembre dicembre",
    "pt": "janeiro fevereiro março abril maio junho julho agosto setembro outubro novembro dezembro",
    "nl": "januari februari maart april mei juni juli augustus september oktober november december",
    "sv": "januari februari mars april maj juni juli augusti september oktober november december",
}
WEEKDAYS = {
    "en": "Monday Tuesday Wednesday Thursday Friday Saturday Sunday",
    "de": "Montag Dienstag Mittwoch Donnerstag Freitag Samstag Sonntag",
    "fr": "lundi mardi mercredi jeudi vendredi samedi dimanche",
    "es": "lunes martes miércoles jueves viernes sábado domingo",
    "it": "lunedì martedì mercoledì giovedì venerdì sabato domenica",
    "pt": "segunda-feira terça-feira quarta-feira quinta-feira sexta-feira sábado domingo",
    "nl": "maandag dinsdag woensdag donderdag vrijdag zaterdag zondag",
    "sv": "måndag tisdag onsdag torsdag fredag lördag söndag",
}
FORMS = {
    "en": (
        "{month} {d}, {y}",
        "{month} {ordinal}, {y}",
        "{d} {month} {y}",
        "the {ordinal} of {month} {y}",
        "{weekday}, {d} {month} {y}",
        "{weekday}, {month} {d}, {y}",
        "{short} {d}, {y}",
        "{d} {short} {y}",
        "{d}-{short}-{yy}",
    ),
    "de": ("{d}. {month} {y}", "{weekday}, {d}. {month} {y}", "am {d}. {month} {y}", "{d}. {short}. {y}"),
    "fr": ("{d} {month} {y}", "le {d} {month} {y}", "{weekday} {d} {month} {y}"),
    "es": ("{d} de {month} de {y}", "{weekday}, {d} de {month} de {y}", "el {d} de {month} del {y}"),
    "it": ("{d} {month} {y}", "{weekday} {d} {month} {y}", "il {d} {month} {y}"),
    "pt": ("{d} de {month} de {y}", "{weekday}, {d} de {month} de {y}"),
    "nl": ("{d} {month} {y}", "{weekday} {d} {month} {y}"),
    "sv": ("{d} {month} {y}", "den {d} {month} {y}", "{weekday} {d} {month} {y}"),
    "digits": (
        "{dd}/{mm}/{y}",
        "{d}/{m}/{y}",
        "{dd}.{mm}.{y}",
        "{d}.{m}.{y}",
        "{dd}.{mm}.{yy}",
        "{dd}-{mm}-{y}",
        "{y}/{mm}/{dd}",
        "{y}.{mm}.{dd}",
        "{y}{mm}{dd}",
    ),
}


def written(day: date, generator: random.Random) -> str:
    """`day` in a random language and form, at times in capitals or small letters."""
    language = generator.choice(list(FORMS))
    month = MONTHS[language].split()[day.month - 1] if language in MONTHS else ""
    weekday = WEEKDAYS[language].split()[day.weekday()] if language in WEEKDAYS else ""
    form = generator.choice(FORMS[language])
    text = form.format(
        d=day.day,
        dd=f"{day.day:02}",
        m=day.month,
        mm=f"{day.month:02}",
        y=day.year,
        yy=f"{day.year % 100:02}",
        ordinal=f"{day.day}{ordinal_ending(day.day)}",
        month=month,
        short=month[:3],
        weekday=weekday,
    )
    return generator.choices((text, text.upper(), text.lower()), (8, 1, 1))[0]


def ordinal_ending(number: int) -> str:
    """The letters after an English ordinal number: 1st, 2nd, 3rd, 11th."""
    return "th" if number in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")


def rows(count: int, seed: int) -> list[dict[str, str]]:
    """`count` rows, each of another date."""
    generator = random.Random(seed)
    days = generator.sample(range((LAST - FIRST).days + 1), count)
    dates = [FIRST + timedelta(days=number) for number in days]
    return [{"prompt": f"{written(day, generator)} =", "completion": f" {day.isoformat()}"} for day in dates]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("dates"), help="folder of the rows (dates)")
    parser.add_argument("--examples", type=int, default=5000, help="rows, those of the test included (5000)")
    parser.add_argument("--seed", type=int, default=0, help="seed of dates and forms (0)")
    options = parser.parse_args()
    made = rows(options.examples, options.seed)
    held_out = max(1, len(made) // 10)
    options.out.mkdir(parents=True, exist_ok=True)
    for name, side in (("test", made[:held_out]), ("train", made[held_out:])):
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in side)
        (options.out / f"{name}.jsonl").write_text(text, "utf-8")
        print(f"{options.out / name}.jsonl: {len(side):,} rows")


if __name__ == "__main__":
    main()
