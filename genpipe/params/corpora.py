"""Blocks of raw data and of text."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from genpipe.params.blocks import Block, Name, RelativePath
from genpipe.params.tokenizers import FILE_TOKENIZERS, NormalisationStep, TokenizerName
from genpipe.params.trajectories import Equation, TrajectoryFile
from genpipe.params.word_taggers import TAGGED, TaggerName

# what a stage depends on where a block names no file: written out, since dvc.yaml has no defaults
NO_FILE = "artifacts/none"
HUB_NAME = r"^[A-Za-z0-9][\w.-]*/[\w.-]+$"
FORM = r"^[1-9]\d?x[1-9]\d?$"
Share = Annotated[float, Field(gt=0, lt=1)]


class Source(Block):
    """Raw data made into plain files under artifacts/datasets/NAME."""

    source: RelativePath


class Digits(Source):
    """The four IDX files of MNIST."""

    kind: Literal["digits"]


class ImageFolder(Source):
    """A folder of pictures, in a sub-folder for each class where there are classes."""

    kind: Literal["image_folder"]
    test_share: Share = Field(0.1, description="share kept for testing, where folders do not say it")
    image_size: int = Field(28, ge=8, description="pixels a side: resized to cover it, cropped at the centre")
    colour: Literal["auto", "grey", "rgb"] = Field(
        "auto", description="auto: grey only where every picture is grey"
    )


class Hub(Source):
    """A data set in a format of Hugging Face's `datasets`: on disk, or fetched from the Hub by name into `source`."""

    name: str | None = Field(
        None, pattern=HUB_NAME, description="of the Hub, as owner/name: `genpipe data` fetches it"
    )
    revision: str | None = Field(
        None,
        pattern=r"^[0-9a-f]{40}$",
        description="the commit of it: 40 hexadecimal digits, for a branch moves on",
    )
    files: tuple[str, ...] = Field(
        (),
        description="patterns of those to fetch, as plain_text/*.parquet; all of known formats where none is given",
    )

    @model_validator(mode="after")
    def _a_name_has_a_revision(self) -> Self:
        if (self.name is None) != (self.revision is None):
            raise ValueError("name and revision go together: the name alone may mean other data tomorrow")
        if self.files and self.name is None:
            raise ValueError("files: of use beside name only")
        return self


class HuggingFace(Hub):
    """Images in a format of Hugging Face's `datasets`."""

    kind: Literal["hugging_face"]
    image: str | None = Field(None, description="column of images; the only one where none is given")
    label: str = Field(
        "auto", description="column of classes; auto: the only one, if there is one; none: no classes"
    )
    test_share: Share = Field(0.1, description="share kept for testing, where there is one split")
    image_size: int = Field(28, ge=8, description="pixels a side: resized to cover it, cropped at the centre")
    colour: Literal["auto", "grey", "rgb"] = Field(
        "auto", description="auto: grey only where every picture is grey"
    )


class HuggingFaceText(Hub):
    """Text in a format of Hugging Face's `datasets`, as records with a field for each column."""

    kind: Literal["hugging_face_text"]
    columns: tuple[str, ...] = Field(
        (), description="columns to take; all of texts, numbers and classes where none is named"
    )
    test_share: Share = Field(0.1, description="share kept for testing, where there is one split")


class Glyphs(Source):
    """Chinese characters drawn in the fonts of a folder; the font is the class."""

    kind: Literal["glyphs"]
    characters: Literal["gb2312", "gb2312_level1"] = Field(
        "gb2312", description="all 6,763 of GB 2312, or the 3,755 frequent ones"
    )
    image_size: int = Field(32, ge=8, description="pixels a side; the font is 7/8 of it high")
    test_share: Share = 0.1
    freetype: str = Field(description="version of FreeType that draws; another one is refused")


class Emoji(Source):
    """Coloured emoji of OpenMoji; the group is the class."""

    kind: Literal["emoji"]
    image_size: int = Field(32, ge=8, description="pixels a side")
    test_share: Share = 0.1
    resvg: str = Field(description="version of resvg-py that draws; another one is refused")


class EmojiNames(Emoji):
    """The English names of the same emoji as text, with the drawings in the same rows and on the same sides."""

    kind: Literal["emoji_names"]  # pyright: ignore[reportIncompatibleVariableOverride]


class FeatureNetwork(Source):
    """A TorchScript file with a network, in whose features images are compared: the judge `datasets/NAME`."""

    kind: Literal["feature_network"]
    channels: Literal[1, 3] = Field(3, description="of the images it takes; grey ones are repeated")
    image_size: int = Field(0, ge=0, description="pixels a side that images are resized to; 0: as they are")
    values: Literal["unit", "signed", "bytes"] = Field(
        "unit", description="of pixels: [0, 1], [-1, 1], 0 to 255"
    )


class Checkpoint(Source):
    """A folder of Hugging Face's BERT family with weights that a training can begin with: `start: datasets/NAME`."""

    kind: Literal["checkpoint"]


class Toys(Source):
    """Points in the plane drawn from a known density."""

    kind: Literal["toys"]
    shape: Literal["two_moons", "eight_gaussians", "ring", "grid", "spirals", "checkerboard"]
    num_train: int = Field(10_000, ge=1)
    num_test: int = Field(2_000, ge=1)
    seed: int = Field(0, ge=0, lt=2**63)


class PointFiles(Source):
    """A CSV file with a header, or an .npy file [rows, dim], of numbers."""

    kind: Literal["points"]
    test_share: Share = 0.1
    label: str | None = Field(None, description="column of the CSV file that holds the class")


class Text(Source):
    """Text files, a document a line."""

    kind: Literal["text"]
    test_share: Share | None = Field(None, description="with it, train.jsonl and test.jsonl are written")


class Poems(Source):
    """Poems as `genpipe data` unpacks them."""

    kind: Literal["poems"]
    test_share: Share | None = Field(None, description="with it, train.jsonl and test.jsonl are written")


class Records(Source):
    """A .jsonl file with fields of your own, or a folder with train.jsonl and a file for each further split."""

    kind: Literal["records"]
    test_share: Share | None = Field(
        None, description="of a file: with it, train.jsonl and test.jsonl are written"
    )


class Couplets(Source):
    """Couplets out of poems with their tones: a .jsonl file, or a folder of them, as `genpipe data` unpacks it."""

    kind: Literal["couplets"]
    test_share: Share = 0.1
    dynasties: tuple[str, ...] = Field(
        ("tang", "song"), min_length=1, description="of a folder: NAME for NAME.jsonl"
    )
    near: int = Field(
        0, ge=0, le=4, description="couplets that differ in so many characters or fewer are on one side"
    )


class Titles(Source):
    """Poems with titles to write, out of a .jsonl file as `genpipe data` unpacks it."""

    kind: Literal["titles"]
    test_share: Share = 0.05
    max_title: int = Field(24, ge=1, description="characters; longer titles are prefaces, and left out")


class Verses(Source):
    """Poems with their verse form and their dynasty, out of a folder of .jsonl files as `genpipe data` unpacks it."""

    kind: Literal["verses"]
    dynasties: tuple[str, ...] = Field(("tang", "song"), min_length=1, description="NAME for NAME.jsonl")
    forms: tuple[Annotated[str, Field(pattern=FORM)], ...] = Field(
        ("5x4", "5x8", "5x12", "7x4", "7x8"), min_length=1, description="characters a line x lines"
    )
    most: int | None = Field(
        4000, ge=1, description="poems of a form and a dynasty at most; null: all of them"
    )
    test_share: Share = 0.05


class Biographies(Source):
    """Questions about biographies, out of a folder of .jsonl files as `genpipe data` unpacks them."""

    kind: Literal["biographies"]
    num_passages: int = Field(3, ge=1, description="passages of a question")
    per_passage: int = Field(3, ge=1, description="biographies that are joined into a passage")
    max_characters: int = Field(
        80, ge=16, description="of a biography: cut after the last sentence that fits"
    )
    no_answer: float = Field(0.15, ge=0, le=0.5, description="share of questions that no passage answers")
    test_share: Share = 0.1


class LabelledText(Source):
    """A folder with a .txt file for each class, a text a line."""

    kind: Literal["labelled_text"]
    test_share: Share = 0.1


class Segmented(Source):
    """A .txt file, or a folder of them, of lines whose words have white space between them."""

    kind: Literal["segmented"]
    test_share: Share = 0.1
    annotation: str | None = Field(
        "/",
        min_length=1,
        description="what stands between a word and what is said of it, as its part of speech",
    )


class GroupedText(Source):
    """Texts in groups of the same meaning: a .jsonl or .tsv file with a text a line and its group, or with a group of texts a line."""

    kind: Literal["grouped_text"]
    line: Literal["text", "group"] = Field(
        "text", description="what a line is: a group and a text, or two or more texts of one group"
    )
    min_han: int = Field(0, ge=0, description="Chinese characters that a text needs; others are left out")
    train_groups: int | None = Field(
        None, ge=1, description="groups to train on at most; the groups to test stay the same"
    )
    test_share: Share = 0.1


class Squad(Source):
    """Questions about paragraphs in the format of SQuAD, version 1 or 2: a .json file, or a folder with one for each split."""

    kind: Literal["squad"]
    test_share: Share | None = Field(None, description="of a file: share of its articles kept for testing")


Dataset = Annotated[
    Digits
    | ImageFolder
    | HuggingFace
    | HuggingFaceText
    | Glyphs
    | Emoji
    | EmojiNames
    | FeatureNetwork
    | Checkpoint
    | Toys
    | PointFiles
    | Equation
    | TrajectoryFile
    | Text
    | Poems
    | Records
    | Couplets
    | Titles
    | Verses
    | Biographies
    | LabelledText
    | Segmented
    | GroupedText
    | Squad,
    Field(discriminator="kind"),
]


class Corpus(Block):
    """Text that is counted and given a vocabulary."""

    dataset: Name
    files: tuple[str, ...] = Field(description="files of the data set to count")
    field: str = "text"
    normalise: tuple[NormalisationStep, ...] = Field((), description="steps before the tokenizer, in order")
    tokenizer: TokenizerName | TaggerName = "jieba"
    tokenizer_file: RelativePath = Field(
        NO_FILE,
        description="bpe, wordpiece, unigram: a Hugging Face file; lexicon: word<TAB>count a line; tagged: the folder of a trained crf_tagger; else "
        + NO_FILE,
    )
    shard_bytes: int = Field(1 << 20, ge=1)
    min_count: int = Field(1, ge=1, description="rarer tokens are <unk>")
    max_size: int | None = Field(None, ge=1, description="size limit of the vocabulary, <unk> included")
    also: tuple[str, ...] = Field(
        (),
        description="tokens that get an id too, whatever their count: other text by this vocabulary has them",
    )

    @model_validator(mode="after")
    def _file_fits_tokenizer(self) -> Self:
        if (self.tokenizer in (*FILE_TOKENIZERS, TAGGED)) != (self.file is not None):
            takes = "needs a file" if self.file is None else f"takes no file; write {NO_FILE}"
            raise ValueError(f"tokenizer_file: the tokenizer {self.tokenizer} {takes}")
        return self

    @property
    def file(self) -> str | None:
        """The file that defines the tokenizer, below the project; None where the tokenizer has none."""
        return None if self.tokenizer_file == NO_FILE else self.tokenizer_file
