"""Makes the tokenizer of a model: SentencePiece BPE with bytes for what is not in its vocabulary.

    python bench/model/make_tokenizer.py TEXT FOLDER [VOCABULARY]

needs sentencepiece and tokenizers. Writes tokenizer.model and a tokenizer.json that gives the same
ids, which it checks on the text itself.
"""

import json
import os
import sys

import sentencepiece
from tokenizers import Tokenizer

SPECIAL = ["<unk>", "<s>", "</s>"]
BYTES = 256


def train(text, folder, vocabulary):
    sentencepiece.SentencePieceTrainer.train(
        input=text, model_prefix=os.path.join(folder, "tokenizer"), model_type="bpe", vocab_size=vocabulary,
        byte_fallback=True, normalization_rule_name="identity", character_coverage=1.0, split_digits=True,
        remove_extra_whitespaces=False, add_dummy_prefix=True, allow_whitespace_only_pieces=True, unk_id=0, bos_id=1,
        eos_id=2, pad_id=-1, max_sentence_length=100000, num_threads=2, minloglevel=2)
    os.remove(os.path.join(folder, "tokenizer.vocab"))
    return sentencepiece.SentencePieceProcessor(model_file=os.path.join(folder, "tokenizer.model"))


def merges_of(vocab):
    """Every way to put a piece together from two others, in the order of the pieces."""
    merges = []
    for piece, rank in vocab.items():
        if rank < len(SPECIAL) + BYTES or len(piece) < 2:
            continue
        ways = [(piece[:k], piece[k:]) for k in range(1, len(piece)) if piece[:k] in vocab and piece[k:] in vocab]
        merges += [(rank, way) for way in sorted(ways, key=lambda way: (vocab[way[0]], vocab[way[1]]))]
    return [" ".join(way) for _, way in sorted(merges, key=lambda merge: merge[0])]


def tokenizer_json(vocab):
    token = lambda name: {"SpecialToken": {"id": name, "type_id": 0}}
    text = lambda name, kind: {"Sequence": {"id": name, "type_id": kind}}
    added = [{"id": i, "content": name, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
              "special": True} for i, name in enumerate(SPECIAL)]
    return {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": added,
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "Prepend", "prepend": "▁"},
            {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]},
        "pre_tokenizer": None,
        "post_processor": {
            "type": "TemplateProcessing", "single": [token("<s>"), text("A", 0)],
            "pair": [token("<s>"), text("A", 0), {"SpecialToken": {"id": "<s>", "type_id": 1}}, text("B", 1)],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}}},
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
            {"type": "ByteFallback"}, {"type": "Fuse"},
            {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
        "model": {"type": "BPE", "dropout": None, "unk_token": "<unk>", "continuing_subword_prefix": None,
                  "end_of_word_suffix": None, "fuse_unk": True, "byte_fallback": True, "ignore_merges": False,
                  "vocab": vocab, "merges": merges_of(vocab)}}


def main():
    text, folder = sys.argv[1], sys.argv[2]
    pieces = train(text, folder, int(sys.argv[3]) if len(sys.argv) > 3 else 2048)
    vocab = {pieces.id_to_piece(i): i for i in range(pieces.get_piece_size())}
    path = os.path.join(folder, "tokenizer.json")
    with open(path, "w", encoding="utf-8") as file:
        json.dump(tokenizer_json(vocab), file, ensure_ascii=False)
    fast = Tokenizer.from_file(path)
    with open(text, encoding="utf-8") as file:
        for paragraph in file.read().split("\n\n"):
            assert fast.encode(paragraph).ids == [1] + pieces.encode(paragraph), paragraph


if __name__ == "__main__":
    main()
