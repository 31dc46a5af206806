"""Terms are defined once, and marked where they occur."""

import html
import re

import pytest

from bnn_symm.report.glossary import GLOSSARY, TermMarker


def test_names_and_anchors_are_unique_and_in_order():
    words = [word.lower() for own in GLOSSARY for word in (own.name, *own.also)]
    assert len(words) == len(set(words))
    assert len({own.anchor for own in GLOSSARY}) == len(GLOSSARY)
    assert all(re.fullmatch(r"term(-[a-z0-9]+)+", own.anchor) for own in GLOSSARY)
    assert all(own.meaning.endswith(".") and len(own.meaning) > 30 for own in GLOSSARY)


@pytest.mark.parametrize("word", ["ECE", "R-hat", "Brier score", "test NLL"])
def test_a_term_has_its_meaning_and_a_link_to_it(word):
    terms = TermMarker()
    text = terms.sentence(f"The {word} of <b>.")
    (term,) = terms.used
    assert f'href="#{term.anchor}"' in text
    assert f'title="{html.escape(term.meaning)}">{word}</abbr>' in text
    assert text.startswith("The <a ")
    assert text.endswith(" of &lt;b&gt;.")


def test_a_term_is_marked_once_in_the_sentences_of_a_section():
    terms = TermMarker()
    assert "<abbr" in terms.sentence("The ECE")
    assert "<abbr" not in terms.sentence("The ECE")
    assert "<abbr" in terms.heading("ECE")
    assert terms.begin() == ""
    assert "<abbr" in terms.sentence("The ECE")


@pytest.mark.parametrize("text", ["ECEs", "piece", "my_ECE", "<script>", "p_loo", "config.seed"])
def test_parts_of_words_are_not_terms(text):
    terms = TermMarker()
    assert terms.sentence(text) == html.escape(text)
    assert terms.used == []
