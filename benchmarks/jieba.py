"""How often genpipe's fast `jieba` cuts otherwise than Python's jieba does, on real text.

python -m benchmarks.jieba FILE… [--field FIELD] [--every N]
"""

import argparse
from collections import Counter

from genpipe.corpus.inputs import find_inputs
from genpipe.corpus.shards import cut, read
from genpipe.corpus.tokenizers import tokenizer

SHARD_BYTES = 1 << 20


def main() -> None:
    """Print documents, tokens, documents that differ, and the first difference of each."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("files", nargs="+")
    parser.add_argument("--field", default="text")
    parser.add_argument(
        "--every", type=int, default=1, metavar="N", help="look at every Nth document of a shard only"
    )
    arguments = parser.parse_args()
    fast, reference = tokenizer("jieba"), tokenizer("jieba_python")
    documents = tokens = different = 0
    differences: Counter[tuple[str, str]] = Counter()
    pieces = [
        p for item in find_inputs(arguments.files, field=arguments.field) for p in cut(item, SHARD_BYTES)
    ]
    for piece in pieces:
        texts = read(piece).documents().gather_every(arguments.every)
        exploded = fast.explode(texts).collect().partition_by("document", as_dict=True, include_key=False)
        for number, wanted in enumerate(reference.split_all(texts.to_list())):
            found = exploded[number,]["token"].to_list() if (number,) in exploded else []
            documents, tokens = documents + 1, tokens + len(wanted)
            different += found != wanted
            pairs = zip(found, wanted, strict=False)
            differences.update([pair for pair in pairs if pair[0] != pair[1]][:1])
    print(f"{documents:,} documents, {tokens:,} tokens, {different:,} documents differ")
    for (found, wanted), count in differences.most_common(10):
        print(f"{count:>5} times first {found!r} instead of {wanted!r}")


if __name__ == "__main__":
    main()
