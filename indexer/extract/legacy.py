"""Which legacy encoding a text is in: the one under which its letters are the likeliest of some language."""

from __future__ import annotations

import codecs
import math
import re
from dataclasses import dataclass
from functools import cache

# Non-ASCII letters of each language, commonest first (counted on Tatoeba), and the encodings that it was written in.
_ALPHABETS = {
    "cp1252": "éàèêçôûùîœâï üäöß íéóáñúü ãêáéçíóàâúôõ èòàéìùí äåöé åæøé äö ðþáíúéæóöý éëçïó éàóèíòçúïü ëçé",
    "cp1254": "ıüçşğöâ",
    "cp1250": "łęśążćóźń íáěžřšéčýůňďúťó áčíšžťýúľéôďňäóŕĺ áéöóőüíúű čšž čšćžđ ăîșțâşţ",
    "iso8859-2": "łęśążćóźń íáěžřšéčýůňďúťó áčíšžťýúľéôďňäóŕĺ áéöóőüíúű čšž čšćžđ",
    "cp1257": "āēīšņūļžķģč šėąžįųūęč äõüöšž",
    "cp1258": "\u0300\u0301đ\u0323ưâơêôă\u0309áà\u0303ó",
    "cp1251": "оетанисмлврдяукпьчыбзгжйюшхэёцщфъ аеиотнсрмквдлпязгбчуъшхфжщйцюь оаинтевімрусдлкябпзьйгцчюжшхщєїфґ "
    "анеяіытрслкомудвцзпгбўьшэчйюхёжф аеоинтсмудрјвклпбгшзчћцљжњхђфџ аеоитнмсрвкдлпшугзбјчжцќњфѓхѕљџ",
    "koi8-r": "оетанисмлврдяукпьчыбзгжйюшхэёцщфъ",
    "koi8-u": "оаинтевімрусдлкябпзьйгцчюжшхщєїфґ",
    "cp866": "оетанисмлврдяукпьчыбзгжйюшхэёцщфъ",
    "iso8859-5": "оетанисмлврдяукпьчыбзгжйюшхэёцщфъ аеоинтсмудрјвклпбгшзчћцљжњхђфџ",
    "cp1253": "αοετισνρμκπίςυλέηάόδγωθήχύφώβζξψϋϊ",
    "iso8859-7": "αοετισνρμκπίςυλέηάόδγωθήχύφώβζξψϋϊ",
    "cp1255": "ויהלאתמרשבםנעחכדקצפגסזןטךףץ",
    "cp1256": "اليمنتكربسأهدعوفةحقجىذإشطخضصغزثئظءآؤ ایندروهتبکسشزلخفگآقعجحچپصطغضذظئژ ایہےکمورنتسںھلبدپجگچٹئفآشزڑخعحق",
    "cp874": "นาอ่เมัรก้งีวยไคหดทลปะสบขิจุตฉูพแ็ืใณำชผถโธึ์ษญภศๆฟซฝฤ๊๋ฮฬฆฎ",
    "cp932": (
        "いはなのたるてにしをかとでっがだすこうられあもまくんりトよきけームンつどさ人分何えち言女わせおめリス生思行イ"
        "一ばみ自ア時見間ね気ろ学君メ話じ出知好ッ・ゃ本べ誰来ラょ上大コずロ車ク食明中ジルげ事ぎ語ド今僕無物や現子者パ"
        "会問実レごび考方持シ信テタ聞ボ手多要全変プ理サフ起当最違む家着ウ達良新真校強不ほ々友題年欲ソ前ひ書ニ性ェエキ"
        "後説勉必業面的ィ心買同高ビカ目下世ぶ代チョマ親住合国地日月"
    ),
    "gb18030": (
        "的了我是你在他不有一很这要个人去上到天那们子看都多好生会能就想大道家知没可得什来以喜意吗工起自么把下房说间做"
        "被事手本和汤也时为用打哪行年成正对里车法已欢点高感爸快己跟请常地日望话明物所乐今完真怎因但中国给吃孩住音您月"
        "前最它然比经球字定样三开相书电外父些着心吧走如每文买同语公还晚面向该觉现再美少西情朋友昨过英儿找小非水睡只必"
        "十读学长动方发业员理民市主部进产新力"
    ),
    "big5hkscs": (
        "的了我是你在他不有一很這要個人去上到天那們子看都多好生會能就想大道家知沒可得什來以喜意嗎工起自麼把下房說間做"
        "被事手本和湯也時為用打哪行年成正對裡車法已歡點高感爸快己跟請常地日望話明物所樂今完真怎因但中國給吃孩住音您月"
        "前最它然比經球字定樣三開相書電外父些著心吧走如每文買同語公還晚面向該覺現再美少西情朋友昨過英兒找小非水睡只必"
        "十讀學長動方發業員理民市主部進產新力唔佢咗係啲嘅哋喺"
    ),
    "cp949": (
        "다는이에어가그을지은나요하고아니를있리한의게기서로사해자내일시것도들었했야우보거수오마만톰않좋너라말으제무세"
        "안까신없주전부여습스입구인생할대면되음녀모당싶문합간정장랑았람비금위상더난려와바과물저네러겠동좀미공살르각같"
        "디때운래화행버영적실차경개언국름많피건걸치늘드분알데년워원직친책집메몇찾심못프누새명성타두선났졌히소방계터얼"
        "결번처약배식날중파진남작올매카렸용울단잘받발른예유임줄연든회산호던절반머갔"
    ),
}  # fmt: skip
_ALPHABETS["euc_jp"] = _ALPHABETS["cp932"]
_ALPHABETS["iso8859-6"] = _ALPHABETS["cp1256"].split()[0]
_MANY = 200  # letters from which on an alphabet is only the commonest part of its script
_DECAY = 3.5  # the commonest letter is e^3.5 times as frequent as the rarest: fits all the counts above
_ASCII_BITS, _MARK_BITS, _LETTER_BITS, _STRANGE_BITS = 4.0, 8.0, 14.0, 18.0
_UPPER_BITS, _BREAK_BITS = 4.0, 10.0
_MARKS = frozenset("«»„“”‘’–—…°§№·•€¿¡´`×©®ªº¹²³½¼、。「」『』・，．：；？！（）《》〈〉【】〜～ー　،؛؟ـ‌‎‏ֿ־ฯๆ")
_DEVIATIONS = re.compile(
    "[A-Za-z][\u0370-\u06ff\u0e00-\u0e7f]|[\u0370-\u06ff\u0e00-\u0e7f][A-Za-z]|[a-zа-яα-ωà-öø-þ][А-ЯΑ-ΩÀ-ÖØ-Þ]"
    "|(?<![ก-๎])[ะ-ฺ็-๎]|[ัิ-ฺ]{2}"
)
_MAX_SAMPLE = 4096
_MAX_BITS = 11.0  # a letter, on average; text in a known encoding needs 4 to 10


@dataclass(frozen=True, slots=True)
class _Language:
    bits: dict[str, float]
    script: range


def guess_legacy(sample: bytes) -> str | None:
    """The codec under which the non-ASCII bytes of `sample` make the likeliest text, or None when none is likely.

    Use it for text that is neither UTF-8 nor UTF-16; a sentence is enough between scripts, within the Latin ones it
    needs a few accented letters. Costs 20 ms. Ties go to the encoding named first in the table.
    """
    sample = sample[:_MAX_SAMPLE]
    best, least = None, math.inf
    for codec in _ALPHABETS:
        text = _decode(sample, codec)
        if text is None:
            continue
        bits = _BREAK_BITS * len(_DEVIATIONS.findall(text)) + min(_bits(text, each) for each in _languages(codec))
        if bits < least:
            best, least = codec, bits
    foreign = len(sample) - len(sample.translate(None, bytes(range(128, 256))))
    ascii_bits = _ASCII_BITS * (len(sample) - foreign)
    return best if least - ascii_bits <= _MAX_BITS * foreign else None


def _decode(sample: bytes, codec: str) -> str | None:
    """The sample decoded, the character torn at its end left out; None when more than 1 in 100 does not fit."""
    text = codecs.getincrementaldecoder(codec)("replace").decode(sample)
    return text if text.count("\ufffd") <= 0.01 * len(text) else None


@cache
def _languages(codec: str) -> tuple[_Language, ...]:
    return tuple(_language(letters) for letters in _ALPHABETS[codec].split())


def _language(letters: str) -> _Language:
    weights = [math.exp(-_DECAY * rank / len(letters)) for rank in range(len(letters))]
    known = 0.8 if len(letters) >= _MANY else 1.0
    bits = {letter: -math.log2(known * w / sum(weights)) for letter, w in zip(letters, weights, strict=True)}
    ideographs = range(0xAC00, 0xD7A4) if "다" in bits else range(0x3041, 0xA000)
    return _Language(bits, ideographs if len(letters) >= _MANY else range(0))


def _bits(text: str, language: _Language) -> float:
    total = 0.0
    for char in text:
        total += _ASCII_BITS if char < "\x80" else _char_bits(char, language)
    return total


def _char_bits(char: str, language: _Language) -> float:
    if (bits := language.bits.get(char)) is not None:
        return bits
    if char in _MARKS:
        return _MARK_BITS
    if (bits := language.bits.get(char.lower())) is not None:
        return bits + _UPPER_BITS
    if ord(char) in language.script:
        return _LETTER_BITS
    return _LETTER_BITS + 2 if char.isalpha() and not "\uff61" <= char <= "\uff9f" else _STRANGE_BITS
