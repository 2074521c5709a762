"""Token ids of llmpress beside those of transformers' AutoTokenizer.

    python compare_ids.py BUILD/bench/print_ids [--slow] [FOLDER...]

Every folder given, and tokenizers of each kind that are trained here, are asked for
the ids of some 400 texts. Prints a line a tokenizer and the first text that differs.
Needs transformers, tokenizers and sentencepiece. --slow takes transformers 4's Python classes, which
read tokenizer.model by its own library as llmpress does; transformers 5 has none, and its LlamaTokenizer
leaves out the space in front of a text that begins with one and the model's normalization.
"""
import io, json, os, random, shutil, subprocess, sys, tempfile

import sentencepiece
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer

LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
          r"|\s*[\r\n]+|\s+(?!\S)|\s+")
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
CORPUS = ["Once upon a time, there was a little girl called Zo\u00eb. She said: \"It's 12:45!\"",
          "def f(x):\n    return x ** 2  # \u00bd of it\n", "\u4f60\u597d\uff0c\u4e16\u754c\u3002 \u041f\u0440\u0438\u0432\u0435\u0442",
          "the cat sat on the mat and the dog ran to the river " * 4]


def texts():
    rng = random.Random(7)
    out = ["", " ", "  ", "\n", "\t\n ", "a", " a", "a ", "Hello world", "  Hello   world  ", "I'LL we've don't",
           "1234567 3.14", "\u00bd \ufb01 \ufdfa e\u0301 \u00e9", "\U0001f469\u200d\U0001f680", "\u2581 x \u2581", "<s>", "a<s>b</s> c",
           "</s></s>", "<unk>", "<|im_start|>user\nHi<|im_end|>\n", " <|im_start|> x", "[PAD]", "<pad>x", "<0x41>",
           "\u00a0x\u2003y\u180ez", "a\r\nb\r\n\r\n  c", "\u0120 \u010a", "na\u00efve caf\u00e9", "\ufeffx", "x" * 300]
    alphabet = ["the ", "cat", " ", "  ", "\n", "\u00e9", "e\u0301", "\u4f60", "12", "7", "'s", "!", "...", "A", "\u2581", "\t",
                "\U0001f600", "<s>", "</s>", "<|im_start|>", "<|im_end|>", "\u041f\u0440", "_", "-", "\u00a0", "<unk>", "[x]", "dog"]
    while len(out) < 400:
        out.append("".join(rng.choice(alphabet) for _ in range(rng.randrange(1, 24))))
    return out


def save(folder, files):
    os.makedirs(folder)
    for name, content in files.items():
        with open(os.path.join(folder, name), "wb") as f:
            f.write(content if isinstance(content, bytes) else
                    (content if isinstance(content, str) else json.dumps(content)).encode())
    return folder


def byte_level(pattern, normalizer=None, specials=("<|endoftext|>",)):
    tok = Tokenizer(models.BPE())
    tok.normalizer = normalizer
    tail = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=pattern is None)
    tok.pre_tokenizer = tail if pattern is None else pre_tokenizers.Sequence(
        [pre_tokenizers.Split(__import__("tokenizers").Regex(pattern), "isolated"), tail])
    tok.decoder = decoders.ByteLevel()
    tok.train_from_iterator(CORPUS, trainers.BpeTrainer(
        vocab_size=400, special_tokens=list(specials), initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    return tok


def spm(**options):
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS * 20), model_writer=model, minloglevel=2, byte_fallback=True,
        **{"vocab_size": 420, "hard_vocab_limit": False, "normalization_rule_name": "identity",
           "remove_extra_whitespaces": False, "allow_whitespace_only_pieces": True, **options})
    return model.getvalue()


def trained(root):
    """(name, folder) of every kind."""
    bos = lambda token, id: processors.TemplateProcessing(
        single=f"{token} $A", pair=f"{token} $A $B", special_tokens=[(token, id)])
    config = lambda name, **more: {"tokenizer_class": name, **more}
    # Without add_bos_token transformers 4 adds BOS to a tokenizer.model's ids, as here, and 5 does not.
    llama = dict(bos_token="<s>", eos_token="</s>", unk_token="<unk>", add_bos_token=True)
    eot = dict(bos_token="<|endoftext|>", eos_token="<|endoftext|>")
    gpt2 = byte_level(None).to_str()
    l3 = byte_level(LLAMA3, specials=("<|begin|>", "<|end|>"))
    l3.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), bos("<|begin|>", 0)])
    qwen = byte_level(QWEN2, normalizers.NFC()).to_str()
    bpe = spm(model_type="bpe", normalization_rule_name="nmt_nfkc", remove_extra_whitespaces=True)
    bpe_id = spm(model_type="bpe")
    uni = spm(model_type="unigram")
    added = {"<|im_start|>": 500, "<|im_end|>": 501}
    decoder = {str(i): {"content": t, "lstrip": False, "rstrip": False, "normalized": False, "single_word": False,
                        "special": True} for t, i in added.items()}
    model_types = {"LlamaTokenizer": "llama", "GPT2Tokenizer": "gpt2", "Qwen2Tokenizer": "qwen2",
                   "PreTrainedTokenizerFast": "llama", "GemmaTokenizer": "gemma"}
    kinds = {
        "gpt2": ("GPT2Tokenizer", {"tokenizer.json": gpt2}, eot),
        "gpt2 add_bos": ("GPT2Tokenizer", {"tokenizer.json": gpt2}, {**eot, "add_bos_token": True}),
        "gpt2 fast": ("PreTrainedTokenizerFast", {"tokenizer.json": gpt2}, eot),
        "llama3": ("PreTrainedTokenizerFast", {"tokenizer.json": l3.to_str()}, {"bos_token": "<|begin|>", "eos_token": "<|end|>"}),
        "llama3 add_bos false": ("PreTrainedTokenizerFast", {"tokenizer.json": l3.to_str()},
                                 {"bos_token": "<|begin|>", "eos_token": "<|end|>", "add_bos_token": False}),
        "qwen2": ("Qwen2Tokenizer", {"tokenizer.json": qwen}, {"eos_token": "<|endoftext|>", "bos_token": None}),
        "spm bpe": ("LlamaTokenizer", {"tokenizer.model": bpe_id}, llama),
        "spm bpe nfkc": ("LlamaTokenizer", {"tokenizer.model": bpe}, llama),
        "spm legacy": ("LlamaTokenizer", {"tokenizer.model": bpe_id}, {**llama, "legacy": True}),
        "spm not legacy": ("LlamaTokenizer", {"tokenizer.model": bpe_id}, {**llama, "legacy": False}),
        "spm no bos": ("LlamaTokenizer", {"tokenizer.model": bpe_id}, {**llama, "add_bos_token": False}),
        "spm added": ("LlamaTokenizer", {"tokenizer.model": bpe_id, "added_tokens.json": added}, llama),
        "spm decoder": ("LlamaTokenizer", {"tokenizer.model": bpe_id}, {**llama, "added_tokens_decoder": decoder}),
        "spm unigram": ("LlamaTokenizer", {"tokenizer.model": uni}, llama),
    }
    for name, (cls, files, more) in kinds.items():
        folder = save(os.path.join(root, name.replace(" ", "-")), {
            **files, "tokenizer_config.json": config(cls, **more), "config.json": {"model_type": model_types[cls]}})
        yield name, folder


def main(binary, folders, fast):
    wanted_texts = texts()
    root = tempfile.mkdtemp()
    with open(os.path.join(root, "texts.json"), "w") as f:
        json.dump(wanted_texts, f)
    for name, folder in [(f, f) for f in folders] + list(trained(root)):
        ours = subprocess.run([binary, folder, f.name], capture_output=True, text=True)
        try:
            tok = AutoTokenizer.from_pretrained(folder, use_fast=fast)
        except Exception as error:
            print(f"{name:24} transformers refuses: {str(error)[:80]}; ours: {ours.stderr[:80] or 'read'}")
            continue
        if ours.returncode:
            print(f"{name:24} refused: {ours.stderr.strip()}")
            continue
        got = json.loads(ours.stdout)
        wanted = [tok(t)["input_ids"] for t in wanted_texts]
        bad = [i for i in range(len(got)) if got[i] != wanted[i]]
        print(f"{name:24} {len(got) - len(bad)}/{len(got)} ({type(tok).__name__})")
        for i in bad[:2]:
            print(f"    {wanted_texts[i]!r}\n      ours   {got[i]}\n      theirs {wanted[i]}")
    shutil.rmtree(root)


if __name__ == "__main__":
    given = [argument for argument in sys.argv[2:] if argument != "--slow"]
    main(sys.argv[1], given, fast="--slow" not in sys.argv)
