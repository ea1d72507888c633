import csv
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from search_svc.voting.labels import TWO_WORD_MAKES, YEARS, Label, normalise, parse

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
    label = parse(name)
    assert label == Label(name, "", "", None)
    assert label.problem == "no make, model and year can be read from the name"


@pytest.mark.parametrize("year", ["1900", "0000", "1907", "2050", "9999"])
def test_a_year_that_no_car_has_is_no_year_and_reported(year):
    label = parse(f"acura_integra_{year}")
    assert triple(label) == ("acura", "integra", None)
    assert label.problem == "no year from 1908 to 2049 can be read from the name"


def test_a_label_that_was_read_has_no_problem():
    assert parse("honda_pilot_2011").problem is None


words = st.text(st.sampled_from("abcxyz0189&'é"), min_size=1, max_size=6)


@settings(deadline=None)
@given(st.sampled_from(sorted(TWO_WORD_MAKES)), st.lists(words, min_size=1, max_size=3), st.sampled_from(YEARS))
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
