"""What samples are written as. Apart from genpipe/files.py, which every training imports: a new picture makes none stale."""

# patterns of names; a directory that holds anything else is not ours
SAMPLES = (
    "samples.npy",
    "grid.png",
    "reconstructions.png",
    "restorations.png",
    "interpolation.png",
    "walks.png",
    "by_class.png",
    "temperatures.png",
    "nearest.png",
    "training.png",
    "stages.png",
    "map_*.png",
    "mistakes.png",
    "points.npy",
    "points.tsv",
    "texts.npy",
    "texts.txt",
    "answers.tsv",
    "written.tsv",
    "tags.tsv",
    "classes.tsv",
    "conditioned.tsv",
    "neighbours.tsv",
    "panels.json",
)
