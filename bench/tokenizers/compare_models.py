"""Ids and decoded texts of llmpress beside those of the `tokenizers` library, over the steps of tokenizer.json.

    python compare_models.py BUILD/bench/print_ids [--text FILE] [--golden OUT.json] [tokenizer.json...]

A small tokenizer of each kind of model is trained for each normalizer, pre-tokenizer and decoder, and asked for the ids of
some 500 texts, without what its post-processor adds, and for what they decode to. Prints a line a tokenizer and the first
texts that differ. Files given are asked as well. --golden writes some tokenizers, some texts and the library's answers for
the tests. Needs tokenizers and sentencepiece.
"""
import argparse, io, json, os, random, subprocess, tempfile, unicodedata

import sentencepiece
from tokenizers import (Regex, Tokenizer, decoders as d, models as m, normalizers as n, pre_tokenizers as p,
                        processors, trainers as t)

RULES = [("\ufb01", "fi"), ("\u00bd", "1/2"), ("e\u0301", "\u00e9"), ("\u3000", " "), ("\u2126", "\u03a9"), ("\u212b", "\u00c5"),
         ("\ufdfa", "\u0635\u0644\u0649"), ("A", "a"), ("\t", " "), ("\u200b", "")]


def texts(rng):
    out = ["", " ", "  ", "\n", "\t\n ", "a", " a", "a ", "Hello world", "  Hello   world  ", "I'LL we've don't can't.",
           "1234567 3.14", "\u00bd \ufb01 \ufdfa e\u0301 \u00e9 \u0130 I\u0307 \u03a3\u03c2", "\U0001f469\u200d\U0001f680 \U0001f1e9\U0001f1ea", "\u2581 x \u2581",
           "[CLS] a [SEP]", "a[MASK]b", "<s>", "a<s>b</s> c", "<unk>", "[UNK]", "[UNK][UNK] x", "<0x41>", "<0xC3><0xA9>",
           "\u00a0x\u2003y\u180ez\u3000w", "a\r\nb\r\n\r\n  c", "\u0120 \u010a", "na\u00efve caf\u00e9 \u1e9e \u00c5ngstr\u00f6m", "\ufeffx\u200by\u00ad", "x" * 120,
           "\u0301\u0301a\u0301", "\u4f60\u597d\uff0c\u4e16\u754c\u3002", "\u65e5\u672c\u8a9e\u306e\u30c6\u30ad\u30b9\u30c8\u30fc ok", "\uac00\uac01 \u1100\u1161\u11a8", "\u0e20\u0e32\u0e29\u0e32 \u0915\u094d\u0937\u093f",
           "\u0000\u0001x\u007f\u0085y\u009f", "\ufffd\ufffdx", "\u05e9\u05dc\u05d5\u05dd \u0627\u0644\u0639", "##a ##b # # a##", "do not. a , b ' s n't", "a-b_c-d--", "\u202eabc\u2066",
           "\U00020000\U0002b820\U0002f800", "\u1734\u1885\u111c9", "\U000e0041 \ue000", "a" * 300 + " b", "\u24b6\u2173 \uff21\uff22 \u00b2"]
    alphabet = ["the ", "cat", " ", "  ", "\n", "\u00e9", "e\u0301", "\u4f60", "\u597d", "12", "7", "'s", "!", "...", "A", "\u2581", "\t", "\U0001f600",
                "<s>", "</s>", "[CLS]", "[MASK]", "\u041f\u0440", "_", "-", "\u00a0", "<unk>", "[x]", "dog", "THE", "\u0130", "\u00df", "\u306e", "\u30c6",
                "\u0301", "\ufb01", "\u00bd", "\u200b", "\r\n", "\u0085", "said", "Once upon", ",", "\u00bf", "\u3002", "\u0915\u094d\u0937", "\u00ad", "\x07", "God", "beginning"]
    while len(out) < 500:
        out.append("".join(rng.choice(alphabet) for _ in range(rng.randrange(1, 24))))
    assigned = [c for c in range(1, 0x20000) if unicodedata.category(chr(c)) not in ("Cn", "Cs")]  # by each one's Unicode
    for _ in range(100):
        out.append("".join(chr(rng.choice([rng.randrange(1, 0x250), rng.choice(assigned)])) for _ in range(rng.randrange(1, 12))))
    return out


def charsmap():
    """A character map of a few rules, in SentencePiece's own bytes."""
    with tempfile.TemporaryDirectory() as root:
        rules = os.path.join(root, "rules.tsv")
        with open(rules, "w") as f:
            for source, target in RULES:
                f.write(" ".join(f"{ord(c):X}" for c in source) + "\t" + " ".join(f"{ord(c):X}" for c in target) + "\n")
        model = io.BytesIO()
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(["a b c d e f"] * 20), model_writer=model, minloglevel=2, vocab_size=12,
            hard_vocab_limit=False, normalization_rule_tsv=rules)
    from sentencepiece import sentencepiece_model_pb2 as pb
    proto = pb.ModelProto()
    proto.ParseFromString(model.getvalue())
    return proto.normalizer_spec.precompiled_charsmap


def trained(model, corpus, size, normalizer=None, pre=None, decoder=None, special=("[UNK]", "[CLS]", "[SEP]", "[MASK]"), **more):
    tok = Tokenizer(model)
    if normalizer is not None: tok.normalizer = normalizer
    if pre is not None: tok.pre_tokenizer = pre
    if decoder is not None: tok.decoder = decoder
    special = list(special)
    name = type(model).__name__
    if name == "WordPiece": trainer = t.WordPieceTrainer(vocab_size=size, special_tokens=special, show_progress=False, **more)
    elif name == "WordLevel": trainer = t.WordLevelTrainer(vocab_size=size, special_tokens=special, show_progress=False)
    elif name == "BPE": trainer = t.BpeTrainer(vocab_size=size, special_tokens=special, show_progress=False, **more)
    else: trainer = t.UnigramTrainer(vocab_size=size, special_tokens=special, unk_token="[UNK]", show_progress=False, **more)
    tok.train_from_iterator(corpus, trainer)
    return tok


def with_json(tok, change):
    tree = json.loads(tok.to_str())
    change(tree)
    return Tokenizer.from_str(json.dumps(tree))


def byte_tokens(tree):
    tree["model"]["byte_fallback"] = True
    if tree["model"]["type"] == "Unigram":
        tree["model"]["vocab"] += [[f"<0x{b:02X}>", -20.0 - b / 7] for b in range(256)]
    else:
        for b in range(256): tree["model"]["vocab"][f"<0x{b:02X}>"] = len(tree["model"]["vocab"])


def kinds(corpus, size):
    """name -> Tokenizer"""
    meta = p.Metaspace()
    words = lambda: p.WhitespaceSplit()
    uni = lambda **o: trained(m.Unigram(), corpus, size, **o)
    wp = lambda **o: trained(m.WordPiece(unk_token="[UNK]"), corpus, size, **o)
    bpe = lambda **o: trained(m.BPE(unk_token="[UNK]"), corpus, size, **o)
    level = lambda **o: trained(m.WordLevel(unk_token="[UNK]"), corpus, size, **o)
    out = {}
    out["unigram metaspace"] = uni(pre=p.Metaspace(), decoder=d.Metaspace())
    out["unigram metaspace never"] = uni(pre=p.Metaspace(prepend_scheme="never"), decoder=d.Metaspace(prepend_scheme="never"))
    out["unigram metaspace first whole"] = uni(pre=p.Metaspace(prepend_scheme="first", split=False), decoder=d.Sequence(
        [d.Replace("\u2581", " "), d.Fuse(), d.Strip(" ", 1, 0)]))
    out["unigram no decoder"] = uni(pre=p.WhitespaceSplit())
    out["unigram nothing"] = uni()
    out["unigram byte fallback"] = with_json(uni(pre=p.Metaspace(), decoder=d.Sequence(
        [d.ByteFallback(), d.Metaspace()])), byte_tokens)
    out["unigram xlm-r"] = uni(normalizer=n.Sequence([n.Precompiled(charsmap()), n.Replace(Regex(" {2,}"), " ")]),
                               pre=p.Sequence([p.WhitespaceSplit(), p.Metaspace()]), decoder=d.Metaspace())
    out["unigram albert"] = uni(normalizer=n.Sequence([n.Replace("``", '"'), n.NFKD(), n.StripAccents(), n.Lowercase(),
                                                       n.Precompiled(charsmap())]), pre=p.Metaspace(), decoder=d.Metaspace())
    out["unigram nmt strip"] = uni(normalizer=n.Sequence([n.Nmt(), n.NFKC(), n.Strip()]), pre=p.Metaspace(), decoder=d.Metaspace())
    out["unigram bytes"] = uni(pre=p.ByteLevel(), decoder=d.ByteLevel())
    out["unigram scripts"] = uni(pre=p.Sequence([p.UnicodeScripts(), p.Metaspace()]), decoder=d.Metaspace())
    def no_unknown_fuse(tree): tree["model"]["vocab"].append(["\u00e8\u00ea", -3.0])
    out["unigram joined unknown"] = with_json(uni(pre=p.Metaspace(), decoder=d.Metaspace()), no_unknown_fuse)
    def ties(tree):
        for entry in tree["model"]["vocab"]: entry[1] = round(entry[1])
    out["unigram ties"] = with_json(uni(pre=p.Metaspace(), decoder=d.Metaspace()), ties)
    out["wordpiece bert"] = wp(normalizer=n.BertNormalizer(), pre=p.BertPreTokenizer(), decoder=d.WordPiece())
    out["wordpiece cased"] = wp(normalizer=n.BertNormalizer(lowercase=False), pre=p.BertPreTokenizer(), decoder=d.WordPiece(cleanup=False))
    out["wordpiece accents"] = wp(normalizer=n.BertNormalizer(lowercase=True, strip_accents=False, handle_chinese_chars=False),
                                  pre=p.BertPreTokenizer(), decoder=d.WordPiece())
    out["wordpiece dirty"] = wp(normalizer=n.BertNormalizer(clean_text=False, lowercase=False, strip_accents=True), pre=p.Whitespace(),
                                decoder=d.WordPiece(prefix="##"))
    out["wordpiece prefix"] = trained(m.WordPiece(unk_token="[UNK]", max_input_chars_per_word=6, continuing_subword_prefix="@@"), corpus, size,
                                      pre=p.Whitespace(), decoder=d.WordPiece(prefix="@@"), continuing_subword_prefix="@@")
    out["wordpiece no decoder"] = wp(pre=p.Whitespace())
    out["wordlevel whitespace"] = level(pre=p.Whitespace())
    out["wordlevel lower"] = level(normalizer=n.Sequence([n.NFD(), n.Lowercase(), n.StripAccents()]), pre=p.Whitespace())
    out["wordlevel delimiter"] = level(pre=p.CharDelimiterSplit("e"))
    for behavior in ["removed", "isolated", "merged_with_previous", "merged_with_next", "contiguous"]:
        out["bpe punctuation " + behavior] = bpe(pre=p.Sequence([p.WhitespaceSplit(), p.Punctuation(behavior)]))
        out["bpe split " + behavior] = bpe(pre=p.Split("e", behavior), decoder=d.Fuse())
        out["bpe split regex " + behavior] = bpe(pre=p.Split(Regex(r"\s+|[a-c]"), behavior, invert=behavior == "isolated"), decoder=d.Fuse())
    out["bpe digits"] = bpe(pre=p.Sequence([p.Whitespace(), p.Digits(True)]))
    out["bpe digits together"] = bpe(pre=p.Sequence([p.Whitespace(), p.Digits(False)]))
    out["bpe end of word"] = trained(m.BPE(unk_token="[UNK]", end_of_word_suffix="</w>"), corpus, size, pre=p.WhitespaceSplit(),
                                     decoder=d.BPEDecoder(), end_of_word_suffix="</w>")
    out["bpe clip"] = trained(m.BPE(unk_token="[UNK]", end_of_word_suffix="</w>"), corpus, size,
                              normalizer=n.Sequence([n.NFC(), n.Replace(Regex(r"\s+"), " "), n.Lowercase()]),
                              pre=p.Sequence([p.Split(Regex(r"'s|'t|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"), "removed", invert=True),
                                              p.ByteLevel(add_prefix_space=False)]), decoder=d.ByteLevel(), end_of_word_suffix="</w>")
    out["bpe inner prefix"] = trained(m.BPE(unk_token="[UNK]", continuing_subword_prefix="##"), corpus, size, pre=p.Whitespace(),
                                      decoder=d.WordPiece(), continuing_subword_prefix="##")
    out["bpe normalizer bytes"] = bpe(normalizer=n.ByteLevel(), decoder=d.ByteLevel())
    out["bpe bytes then split"] = bpe(pre=p.Sequence([p.ByteLevel(), p.Split("e", "isolated")]), decoder=d.ByteLevel())
    out["bpe replace decoder"] = bpe(normalizer=n.Sequence([n.Prepend("_"), n.Replace(" ", "_"), n.Strip(left=False)]),
                                     decoder=d.Sequence([d.Replace(Regex("_+"), " "), d.Fuse(), d.Strip(" ", 1, 0)]))
    out["bpe fuse unknown"] = trained(m.BPE(unk_token="[UNK]", fuse_unk=True), corpus, size, pre=p.Metaspace(), decoder=d.Metaspace())
    out["bpe byte fallback"] = with_json(trained(m.BPE(unk_token="[UNK]", byte_fallback=True), corpus, size, pre=p.Metaspace(), decoder=d.Sequence(
        [d.ByteFallback(), d.Metaspace()])), byte_tokens)
    def with_bert(tree):
        ids = tree["model"]["vocab"]
        tree["post_processor"] = {"type": "BertProcessing", "sep": ["[SEP]", ids["[SEP]"]], "cls": ["[CLS]", ids["[CLS]"]]}
    out["wordpiece bert processing"] = with_json(out["wordpiece bert"], with_bert)
    def with_roberta(tree):
        ids = tree["model"]["vocab"]
        tree["post_processor"] = {"type": "RobertaProcessing", "sep": ["[SEP]", ids["[SEP]"]], "cls": ["[CLS]", ids["[CLS]"]],
                                  "trim_offsets": True, "add_prefix_space": True}
    out["bpe roberta processing"] = with_json(bpe(pre=p.ByteLevel(), decoder=d.ByteLevel()), with_roberta)
    return out


def answers(tok, wanted):
    ids = [tok.encode(text, add_special_tokens=False).ids for text in wanted]
    return [{"ids": i, "text": tok.decode(i, skip_special_tokens=False)} for i in ids]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("binary"); parser.add_argument("--text", action="append", default=[])
    parser.add_argument("--golden"); parser.add_argument("files", nargs="*")
    o = parser.parse_args()
    corpus = ["Once upon a time, there was a little girl called Zo\u00eb. She said: \"It's 12:45!\"", "\u4f60\u597d\uff0c\u4e16\u754c\u3002 \u041f\u0440\u0438\u0432\u0435\u0442 \u65e5\u672c\u8a9e\u306e\u30c6\u30ad\u30b9\u30c8",
              "def f(x):\n    return x ** 2  # \u00bd of it\n", "na\u00efve caf\u00e9 e\u0301 \u0130stanbul THE God", "the cat sat on the mat and the dog ran to the river " * 4]
    for name in o.text:
        corpus += open(name, encoding="utf-8").read().splitlines()[:4000]
    wanted = texts(random.Random(7))
    named = {f: Tokenizer.from_file(f) for f in o.files} | kinds(corpus, 320 if not o.text else 1500)
    for name, tok in named.items():
        tok.no_padding(); tok.no_truncation()
    same_ids = same_texts = total = 0
    for name, tok in named.items():
        theirs = answers(tok, wanted)
        with tempfile.TemporaryDirectory() as folder:
            tok.save(os.path.join(folder, "tokenizer.json"))
            with open(os.path.join(folder, "texts"), "w") as f: json.dump(wanted, f)
            ours = subprocess.run([o.binary, folder, os.path.join(folder, "texts"), "--decoded"], capture_output=True, text=True)
        if ours.returncode:
            print(f"{name:34} refused: {ours.stderr.strip()}"); continue
        got = json.loads(ours.stdout)
        bad = [i for i in range(len(got)) if not isinstance(got[i], dict) or got[i]["ids"] != theirs[i]["ids"]]
        unlike = [i for i in range(len(got)) if i not in bad and got[i]["text"] != theirs[i]["text"]]
        print(f"{name:34} ids {len(got) - len(bad)}/{len(got)}, decoded {len(got) - len(bad) - len(unlike)}/{len(got)}")
        same_ids += len(got) - len(bad); same_texts += len(got) - len(bad) - len(unlike); total += len(got)
        for i in (bad[:2] + unlike[:2]):
            print(f"    {wanted[i]!r}\n      ours   {got[i]}\n      theirs {theirs[i]}")
    print(f"{len(named)} tokenizers: ids {same_ids}/{total}, decoded {same_texts}/{total}")
    if o.golden:
        some = wanted[:52]
        with open(o.golden, "w") as f:
            json.dump({"texts": some, "tokenizers": [{"name": name, "tokenizer": json.loads(tok.to_str()), "answers": answers(tok, some)}
                                                     for name, tok in kinds(corpus, 130).items()]}, f, ensure_ascii=True, separators=(",", ":"))


if __name__ == "__main__":
    main()
