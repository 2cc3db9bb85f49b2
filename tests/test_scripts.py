"""Texts in either script of Chinese, read by a vocabulary of one."""

import opencc

from genpipe.using import scripts


def test_a_text_is_converted_once_and_an_answer_once_back():
    reader = scripts.Reader(["<unk>", "\n", "髮", "發", "風", "搖", "樹", "還", "國", "峯", "里"])
    assert reader.script == "traditional"
    assert reader.read("风摇树还") == reader.read("風搖樹還") == "風搖樹還"
    assert reader.read("头发") == opencc.OpenCC("s2t").convert("头发")  # a phrase decides: 髮, not 發
    assert reader.read("出发")[1] == "發"
    assert reader.read("峰") == "峯"  # a variant that the vocabulary lacks
    # to and fro is not the same: 发 is both, and 后 a word of traditional texts too
    assert [scripts.script_of(text) for text in ("风", "風", "山水")] == [
        "simplified",
        "traditional",
        "either",
    ]
    assert scripts.converted("髮發", "simplified") == "发发"
    assert scripts.traditional(scripts.simplified("髮")) != "髮"
    assert scripts.converted("山水", "traditional") == "山水"


def test_a_phrase_that_would_change_the_length_is_converted_character_by_character(monkeypatch):
    """An answer has a character for each of the line."""

    class Longer:
        def convert(self, text):
            return opencc.OpenCC("s2t").convert(text) + "兒" * (len(text) > 1)

    monkeypatch.setattr(scripts, "traditional", Longer().convert)
    assert scripts.converted("风树", "traditional") == "風樹"
