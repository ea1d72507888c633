import csv
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from vmmr.label_names import MAKES, YEARS, doubtful_makes, normalise, read, shown_makes

from search_svc.voting.labels import Label, parse

DATA = Path(__file__).parents[3] / ".." / "shared" / "data"

# Read by hand from VMMRdb's folder names: the make ends at the first underscore, the year is last, 1900 is no year.
VMMRDB = {
    "acura_cl_1997": ("acura", "cl", 1997),
    "acura_el_2001": ("acura", "el", 2001),
    "acura_ilx_2013": ("acura", "ilx", 2013),
    "acura_integra_1900": ("acura", "integra", None),
    "acura_integra_1986": ("acura", "integra", 1986),
    "acura_integra_2001": ("acura", "integra", 2001),
    "acura_kang_2007": ("acura", "kang", 2007),
    "acura_legend_1994": ("acura", "legend", 1994),
    "acura_mdx_1900": ("acura", "mdx", None),
    "acura_mdx_2001": ("acura", "mdx", 2001),
    "acura_mdx_2016": ("acura", "mdx", 2016),
    "acura_nsx_2002": ("acura", "nsx", 2002),
    "acura_rdx_2014": ("acura", "rdx", 2014),
    "acura_tl_2003": ("acura", "tl", 2003),
    "audi_a4_1998": ("audi", "a4", 1998),
    "audi_a4_2004": ("audi", "a4", 2004),
    "audi_tt_2000": ("audi", "tt", 2000),
    "bmw_325i_2003": ("bmw", "325i", 2003),
    "bmw_535i_2011": ("bmw", "535i", 2011),
    "bmw_x5_2001": ("bmw", "x5", 2001),
    "buick_lacrosse_2005": ("buick", "lacrosse", 2005),
    "buick_regal_1999": ("buick", "regal", 1999),
    "cadillac_catera_2000": ("cadillac", "catera", 2000),
    "cadillac_cts_2005": ("cadillac", "cts", 2005),
    "chevrolet_el camino_1972": ("chevrolet", "el camino", 1972),
    "chevrolet_impala_2007": ("chevrolet", "impala", 2007),
    "chevrolet_k10_1984": ("chevrolet", "k10", 1984),
    "chevrolet_montecarlo_2002": ("chevrolet", "montecarlo", 2002),
    "chevrolet_silverado_1999": ("chevrolet", "silverado", 1999),
    "chevrolet_silverado_2004": ("chevrolet", "silverado", 2004),
    "chevrolet_silverado_3500_2006": ("chevrolet", "silverado 3500", 2006),
    "chevrolet_trailblazer_2004": ("chevrolet", "trailblazer", 2004),
    "chrysler_300_2006": ("chrysler", "300", 2006),
    "chrysler_fifth avenue_1988": ("chrysler", "fifth avenue", 1988),
    "chrysler_new yorker_1992": ("chrysler", "new yorker", 1992),
    "chrysler_pacifica_2004": ("chrysler", "pacifica", 2004),
    "chrysler_pt cruiser_2005": ("chrysler", "pt cruiser", 2005),
    "chrysler_town&country_2008": ("chrysler", "town&country", 2008),
    "dodge_avenger_2008": ("dodge", "avenger", 2008),
    "dodge_d150_1985": ("dodge", "d150", 1985),
    "dodge_durango_1998": ("dodge", "durango", 1998),
    "dodge_grand caravan_2005": ("dodge", "grand caravan", 2005),
    "dodge_ram_1500_2005": ("dodge", "ram 1500", 2005),
    "ford_explorer_2003": ("ford", "explorer", 2003),
    "ford_f150_2010": ("ford", "f150", 2010),
    "ford_f250_1999": ("ford", "f250", 1999),
    "ford_focus_2004": ("ford", "focus", 2004),
    "ford_mustang_2000": ("ford", "mustang", 2000),
    "gmc_envoy_2003": ("gmc", "envoy", 2003),
    "gmc_jimmy_1997": ("gmc", "jimmy", 1997),
    "honda_civic_2002": ("honda", "civic", 2002),
    "honda_civic_2009": ("honda", "civic", 2009),
    "honda_passport_1999": ("honda", "passport", 1999),
    "honda_pilot_2011": ("honda", "pilot", 2011),
    "honda_prelude_1998": ("honda", "prelude", 1998),
    "honda_s2000_2004": ("honda", "s2000", 2004),
    "hummer_h3_2007": ("hummer", "h3", 2007),
    "hyundai_azera_2006": ("hyundai", "azera", 2006),
    "hyundai_elantra_2002": ("hyundai", "elantra", 2002),
    "infiniti_g35_2004": ("infiniti", "g35", 2004),
    "infiniti_g35_coupe_2004": ("infiniti", "g35 coupe", 2004),
    "infiniti_i30_1998": ("infiniti", "i30", 1998),
    "infiniti_qx4_2001": ("infiniti", "qx4", 2001),
    "jeep_grand_cherokee_1997": ("jeep", "grand cherokee", 1997),
    "jeep_liberty_2006": ("jeep", "liberty", 2006),
    "kia_sedona_2005": ("kia", "sedona", 2005),
    "lexus_is300_2002": ("lexus", "is300", 2002),
    "lexus_rx300_1999": ("lexus", "rx300", 1999),
    "lincoln_ls_2002": ("lincoln", "ls", 2002),
    "lincoln_navigator_2003": ("lincoln", "navigator", 2003),
    "mazda_6_2005": ("mazda", "6", 2005),
    "mazda_rx8_2004": ("mazda", "rx8", 2004),
    "mercedes benz_c240_2003": ("mercedes benz", "c240", 2003),
    "mercedes benz_e320_2001": ("mercedes benz", "e320", 2001),
    "mercedes benz_e320_wagon_1999": ("mercedes benz", "e320 wagon", 1999),
    "mercedes benz_ml350_2006": ("mercedes benz", "ml350", 2006),
    "mercedes benz_s550_2008": ("mercedes benz", "s550", 2008),
    "mercury_mountaineer_2002": ("mercury", "mountaineer", 2002),
    "mercury_villager_1999": ("mercury", "villager", 1999),
    "mini_cooper_2003": ("mini", "cooper", 2003),
    "mitsubishi_eclipse_2001": ("mitsubishi", "eclipse", 2001),
    "nissan_altima_2002": ("nissan", "altima", 2002),
    "nissan_sentra_2006": ("nissan", "sentra", 2006),
    "oldsmobile_intrigue_1999": ("oldsmobile", "intrigue", 1999),
    "oldsmobile_silhouette_2001": ("oldsmobile", "silhouette", 2001),
    "pontiac_g6_2007": ("pontiac", "g6", 2007),
    "porsche_cayenne_2004": ("porsche", "cayenne", 2004),
    "saturn_ion_2004": ("saturn", "ion", 2004),
    "scion_tc_2007": ("scion", "tc", 2007),
    "scion_xa_2005": ("scion", "xa", 2005),
    "subaru_outback_2001": ("subaru", "outback", 2001),
    "toyota_camry_2007": ("toyota", "camry", 2007),
    "toyota_camry_le_2013": ("toyota", "camry le", 2013),
    "toyota_solara_2002": ("toyota", "solara", 2002),
    "volkswagen_jetta_2003": ("volkswagen", "jetta", 2003),
    "volvo_c70_1999": ("volvo", "c70", 1999),
    "volvo_s40_2004": ("volvo", "s40", 2004),
    "volvo_s60_2002": ("volvo", "s60", 2002),
    "volvo_xc90_2004": ("volvo", "xc90", 2004),
}

OTHER_COLLECTIONS = {
    "land_rover_discovery_2003": ("land rover", "discovery", 2003),
    "land rover_discovery_2003": ("land rover", "discovery", 2003),
    "Land Rover Range Rover SUV 2012": ("land rover", "range rover suv", 2012),
    "alfa_romeo_4c_2015": ("alfa romeo", "4c", 2015),
    "Rolls-Royce Ghost Sedan 2012": ("rolls royce", "ghost sedan", 2012),
    "rolls-royce_ghost_2012": ("rolls royce", "ghost", 2012),
    "Bugatti Veyron 16.4 Coupe 2009": ("bugatti", "veyron 16 4 coupe", 2009),
    "Ram C/V Cargo Van Minivan 2012": ("ram", "c v cargo van minivan", 2012),
    "general motors_ev1_1997": ("general motors", "ev1", 1997),  # a space before the underscore: all of it is the make
    "CITROËN_C4_2011": ("citroën", "c4", 2011),
    "Range Rover Evoque Coupe 2012": ("land rover", "range rover evoque coupe", 2012),
    "range_rover_sport_2012": ("land rover", "range rover sport", 2012),
    "Range Rover_Sport_2012": ("land rover", "range rover sport", 2012),
    "Lynk & Co 01 2020": ("lynk & co", "01", 2020),
    "lynk_&_co_01_2020": ("lynk & co", "01", 2020),
    "lynk_co_01_2020": ("lynk & co", "01", 2020),
    "Lynk&Co_01_2020": ("lynk & co", "01", 2020),
    "maruti_suzuki_swift_2015": ("maruti suzuki", "swift", 2015),
    "honda_pilot_2009_2011": ("honda", "pilot", None),
    "Honda Pilot 2009-2011": ("honda", "pilot", None),
    "honda_pilot_2011_2011": ("honda", "pilot", 2011),
    "peugeot_2008_2015": ("peugeot", "2008", 2015),
    "peugeot_3008_2016": ("peugeot", "3008", 2016),
    "bmw_2002_1975": ("bmw", "2002", 1975),
    "alfa romeo_1900_1954": ("alfa romeo", "1900", 1954),
    " honda _ pilot _ 2011 ": ("honda", "pilot", 2011),
}

UNREADABLE = [
    "",
    "_",
    "ambulance",
    "honda_civic",
    "honda_2001",
    "land_rover_2003",  # a make without a model
    "honda_civic_99",
    "honda_civic_20011",
    "honda_civic_unknown",
    "honda_civic_2001_front",
    "2001_honda_civic",
    "honda_civic_٢٠٠١",
]


def triple(label: Label) -> tuple[str, str, int | None]:
    return label.make, label.model, label.year


@pytest.mark.parametrize(("name", "expected"), [*VMMRDB.items(), *OTHER_COLLECTIONS.items()])
def test_make_model_and_year_are_read(name, expected):
    label = parse(name)
    assert triple(label) == expected
    assert label.label == name, "the name is the key, and stays as it was"


def test_every_vmmrdb_name_we_have_is_among_the_expected():
    names = DATA / "vmmrdb_names.txt"
    if not names.exists():
        pytest.skip("the list of VMMRdb names is not here")
    assert set(names.read_text().splitlines()) == set(VMMRDB)


def test_every_stanford_cars_folder_and_name_is_read_as_its_columns_say():
    classes = DATA / "stanford_cars" / "classes.csv"
    if not classes.exists():
        pytest.skip("Stanford Cars is not here")
    with classes.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 196
    for row in rows:
        expected = (plain(row["make"]), plain(row["model"]), int(row["year"]))
        assert triple(parse(row["dir"])) == expected
        assert triple(parse(row["stanford_name"])) == expected


def plain(words: str) -> str:
    return re.sub(r"[^a-z0-9]+", " ", words.lower()).strip()


@pytest.mark.parametrize("name", UNREADABLE)
def test_a_name_of_another_form_is_kept_and_reported_not_guessed(name):
    assert parse(name) == Label(name, "", "", None)
    assert read(name).problem == "no make, model and year can be read from the name"


@pytest.mark.parametrize("year", ["1900", "0000", "1907", "2050", "9999"])
def test_a_year_that_no_car_has_is_no_year_and_reported(year):
    assert triple(parse(f"acura_integra_{year}")) == ("acura", "integra", None)
    assert read(f"acura_integra_{year}").problem == "no year from 1908 to 2049 can be read from the name"


def test_a_label_that_was_read_has_no_problem():
    assert read("honda_pilot_2011").problem is None


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("honda_pilot_2009_2011", "it names the years 2009 to 2011, and a label has one"),
        ("Honda Pilot 2009\u20132011", "it names the years 2009 to 2011, and a label has one"),
        ("pilot_2009_2011", "no make and model can be read from the name beside the years 2009 to 2011"),
    ],
)
def test_a_range_of_years_is_told_and_no_part_of_the_model(name, problem):
    assert read(name).problem == problem
    assert "2009" not in read(name).model


def test_makes_of_several_words_are_read_where_they_are_given_and_where_labels_show_them():
    assert read("iran_khodro_samand_2010").make == "iran"
    assert read("iran_khodro_samand_2010", {"iran khodro"})[:3] == ("iran khodro", "samand", 2010)
    assert shown_makes(["Iran-Khodro_Samand_2010", "honda_pilot_2011", "Land Rover LR2 2012", "a b_c"]) == {
        "iran khodro"
    }


def test_words_that_may_be_a_make_are_those_that_no_label_of_the_first_word_lacks():
    labels = [
        "iran_khodro_samand_2010",
        "iran_khodro_dena_2015",
        "honda_civic_2001",
        "honda_civic_2002",
        "kia_rio_2009",
    ]
    assert doubtful_makes(labels) == {"iran khodro": 2}
    assert doubtful_makes(labels, {"iran khodro"}) == {}
    assert doubtful_makes([*labels, "iran_paykan_1990"]) == {}


words = st.text(st.sampled_from("abcxyz0189&'é"), min_size=1, max_size=6).filter(lambda word: not word.isdecimal())


@settings(deadline=None)
@given(st.sampled_from(sorted(MAKES)), st.lists(words, min_size=1, max_size=3), st.sampled_from(YEARS))
def test_two_word_makes_are_read_however_they_are_joined(make, model, year):
    expected = (make, " ".join(model), year)
    for joined in (make, make.replace(" ", "_")):
        assert triple(parse("_".join([joined, *model, str(year)]))) == expected
    for joined in (make, make.replace(" ", "-"), make.title()):
        assert triple(parse(" ".join([joined, *model, str(year)]))) == expected


@settings(deadline=None)
@given(st.text(max_size=40))
def test_any_string_is_a_label_and_what_is_read_is_normalised(name):
    label = parse(name)
    assert label.label == name
    assert normalise(label.make) == label.make
    assert normalise(label.model) == label.model
    assert bool(label.make) == bool(label.model)
    assert label.year is None or label.make


@settings(deadline=None)
@given(st.text(max_size=40))
def test_normalising_twice_changes_nothing(words):
    assert normalise(normalise(words)) == normalise(words)
