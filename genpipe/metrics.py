"""Every metric: its name, its unit, which way is better, and what it is compared with. The only place for that.

The report, the rules of promotion, sweeps and `train.best` read it; a metric that is not here is an error.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from genpipe.errors import BadInput

Direction = Literal["minimise", "maximise", "as real", ""]


@dataclass(frozen=True)
class Metric:
    """How a metric is shown and compared; `%` as unit stands for a share in [0, 1]."""

    label: str
    unit: str = ""
    direction: Direction = ""
    explanation: str = ""
    baselines: Mapping[str, str] = field(default_factory=dict)  # other metric -> what it is
    constants: Mapping[str, float] = field(default_factory=dict)  # what it is -> value


# In order of importance: the first that a recipe has is its key metric.
METRICS: dict[str, Metric] = {
    "accuracy": Metric(
        "Accuracy",
        "%",
        "maximise",
        "Share of test examples whose most likely answer is right.",
        {
            "accuracy_majority": "always the most frequent class",
            "accuracy_naive_bayes": "naive Bayes over the tokens of the training texts",
        },
    ),
    "word_f1": Metric(
        "F1 of words",
        "%",
        "maximise",
        "Harmonic mean of precision and recall of the words of test texts: a word is right where it begins and ends as in the data.",
        {"word_f1_singles": "a word for each character"},
    ),
    "word_precision": Metric(
        "Precision of words",
        "%",
        "maximise",
        "Share of the words that are found which are words of the data.",
    ),
    "word_recall": Metric(
        "Recall of words", "%", "maximise", "Share of the words of the data which are found."
    ),
    "tag_accuracy": Metric(
        "Tagging accuracy",
        "%",
        "maximise",
        "Share of tokens of test texts whose most likely tag is right.",
        {"tag_accuracy_majority": "always the most frequent tag"},
    ),
    "final": Metric(
        "Final",
        "%",
        "maximise",
        "The mean of exact match and F1 of the answers to test questions.",
        {
            "final_copy": "what follows the longest part of the question in a passage",
            "final_majority": "the most frequent answer",
        },
    ),
    "final_extractive": Metric(
        "Final, of parts of a passage", "%", "maximise", "Final of answers that must be parts of a passage."
    ),
    "rouge_l": Metric(
        "ROUGE-L",
        "%",
        "maximise",
        "Harmonic mean of the longest common subsequence of a written and the right text, over the length of either, in characters "
        "without punctuation; the mean over test texts.",
        {"rouge_l_copy": "the beginning of the source", "rouge_l_majority": "the most frequent target"},
    ),
    "bleu": Metric(
        "BLEU",
        "%",
        "maximise",
        "BLEU of all written texts by sacrebleu, in characters. Its n-grams go up to those that half of the targets have, four at most: "
        "see the order beside it.",
        {"bleu_copy": "the beginning of the source", "bleu_majority": "the most frequent target"},
    ),
    "exact_match": Metric(
        "Exact match",
        "%",
        "maximise",
        "Share of test texts that are written as one of the right ones, but for punctuation and spaces.",
        {
            "exact_match_copy": "a copy of what was read",
            "exact_match_majority": "the most frequent answer or target",
        },
    ),
    "f1": Metric(
        "F1 of characters",
        "%",
        "maximise",
        "Characters that an answer shares with the nearest right one, as the harmonic mean of both shares.",
        {
            "f1_copy": "what follows the longest part of the question in a passage",
            "f1_majority": "the most frequent answer",
        },
    ),
    "caption_f1": Metric(
        "F1 of words of captions",
        "%",
        "maximise",
        "Words that the likeliest caption of a test image shares with the right one, as the harmonic mean of both shares; the mean over images.",
        {
            "caption_f1_majority": "the most frequent caption",
            "caption_f1_constant": "always the training caption that shares most with the others",
            "caption_f1_nearest": "the caption of the nearest training image",
            "caption_f1_shuffled": "the model under another image",
            "caption_f1_zero": "the model without an image",
        },
    ),
    "caption_match": Metric(
        "Captions that are right",
        "%",
        "maximise",
        "Share of test images whose likeliest caption is the right one, word for word.",
        {
            "caption_match_majority": "the most frequent caption",
            "caption_match_constant": "always the training caption that shares most with the others",
            "caption_match_nearest": "the caption of the nearest training image",
            "caption_match_shuffled": "the model under another image",
            "caption_match_zero": "the model without an image",
        },
    ),
    "vector_gap": Metric(
        "Cost of another image",
        "nats a token",
        "maximise",
        "How much more a word of a test caption costs under the features of another test image than under its own.",
        constants={"a model that does not look": 0.0},
    ),
    "distinct_captions": Metric(
        "Different captions",
        "%",
        "as real",
        "Share of test images whose likeliest caption no image before it has.",
        {"distinct_captions_real": "right captions"},
    ),
    "form_accuracy": Metric(
        "Verse form asked for",
        "%",
        "maximise",
        "Share of samples that have the verse form that was asked for: all lines of that length, and as many.",
        {"form_accuracy_majority": "always the most frequent form", "form_accuracy_real": "real verse"},
    ),
    "condition_accuracy": Metric(
        "Condition asked for",
        "%",
        "maximise",
        "Share of samples in which naive Bayes, counted over the characters of the training texts, finds the class that was asked for; "
        "the mean over conditions.",
        {
            "condition_accuracy_majority": "always the most frequent class",
            "condition_accuracy_real": "real texts",
        },
    ),
    "all_conditions": Metric(
        "All conditions asked for",
        "%",
        "maximise",
        "Share of samples in which every condition is found at once, forms and others.",
        {"all_conditions_real": "real texts"},
    ),
    "bits_per_character": Metric(
        "Bits a character",
        "bits",
        "minimise",
        "Surprise at a character or the end of a test text, given those before it and its classes.",
        {
            "bits_per_character_bigram": "bigrams of the training texts",
            "bits_per_character_unigram": "character frequencies of the training texts",
        },
    ),
    "condition_gap": Metric(
        "Cost of another class",
        "nats a character",
        "maximise",
        "How much more a character of a test text costs under another class than under its own; the mean over conditions.",
        constants={"a model that does not listen": 0.0},
    ),
    "form_gap": Metric(
        "Cost of another form",
        "nats a character",
        "maximise",
        "How much more a character of test verse costs under another form than under its own.",
        constants={"a model that does not listen": 0.0},
    ),
    "top_1": Metric(
        "Nearest text",
        "%",
        "maximise",
        "Share of texts whose nearest other text, among all of the split, is of the same group.",
        {
            "top_1_tf_idf": "counts of tokens, weighed by their rarity",
            "top_1_bag": "counts of tokens",
            "top_1_random": "a text at random",
        },
    ),
    "top_5": Metric(
        "Five nearest texts",
        "%",
        "maximise",
        "Share of texts with one of the same group among the five nearest.",
        {"top_5_tf_idf": "counts of tokens, weighed by their rarity", "top_5_bag": "counts of tokens"},
    ),
    "top_10": Metric(
        "Ten nearest texts",
        "%",
        "maximise",
        "Share of texts with one of the same group among the ten nearest.",
        {"top_10_tf_idf": "counts of tokens, weighed by their rarity", "top_10_bag": "counts of tokens"},
    ),
    "mean_reciprocal_rank": Metric(
        "Mean reciprocal rank",
        "",
        "maximise",
        "The mean of 1/r, where the nearest text of the same group is the r-th nearest of all.",
        {
            "mean_reciprocal_rank_tf_idf": "counts of tokens, weighed by their rarity",
            "mean_reciprocal_rank_bag": "counts of tokens",
        },
    ),
    "bits_per_dim": Metric(
        "Bits per dimension",
        "bits a pixel",
        "minimise",
        "Bits the model needs for a pixel of a test image: exact of a model that draws bytes pixel by pixel, else an upper "
        "bound, with pixels dequantised by uniform noise.",
        constants={"uniform distribution": 8.0},
    ),
    "nats_per_image": Metric(
        "Negative log-likelihood of bits",
        "nats an image",
        "minimise",
        "Surprise at a test image whose pixels are 0 or 1, by the threshold 128: exact of a model that draws pixel by pixel, of one with "
        "latents an upper bound, the negative ELBO. Far less than other models have may be a leak.",
        {"nats_per_image_pixelwise": "independent pixels"},
    ),
    "nats_per_point": Metric(
        "Negative log-likelihood",
        "nats a point",
        "minimise",
        "Surprise at a test point.",
        {"nats_per_point_gaussian": "a Gaussian of the training points"},
    ),
    "negative_elbo": Metric(
        "Negative ELBO",
        "nats an example",
        "minimise",
        "Upper bound on the surprise at a test example: reconstruction and divergence of the posterior from the prior.",
    ),
    "negative_importance_bound": Metric(
        "Importance-weighted bound",
        "nats an example",
        "minimise",
        "Upper bound on the surprise at a test example by many latents an example: between the negative ELBO and the truth.",
    ),
    "nats_per_point_on_grid": Metric(
        "Negative log-likelihood of an energy",
        "nats a point",
        "minimise",
        "Surprise at a test point, with exp(−energy) normalised on a grid over the square about all points.",
    ),
    "masked_accuracy": Metric(
        "Accuracy of hidden tokens",
        "%",
        "maximise",
        "Share of the tokens of test texts that are hidden as in training, each behind a mark, and found from what is left.",
        {
            "masked_accuracy_unigram": "the most frequent token",
            "masked_accuracy_bigram": "a Markov chain, given all that is left",
        },
    ),
    "bits_per_masked_token": Metric(
        "Surprise at hidden tokens",
        "bits a token",
        "minimise",
        "Of the tokens of test texts that are hidden as in training, given what is left; of characters it is bits a character.",
        {
            "bits_per_masked_token_unigram": "frequencies of tokens",
            "bits_per_masked_token_bigram": "a Markov chain, given all that is left",
        },
    ),
    "nats_per_token": Metric(
        "Cross-entropy",
        "nats a token",
        "minimise",
        "Surprise at a token of a test text, given those before it.",
        {
            "nats_per_token_unigram": "frequencies of tokens",
            "nats_per_token_shuffled": "under another image",
            "nats_per_token_zero": "without an image",
        },
    ),
    "perplexity": Metric(
        "Perplexity", "tokens", "minimise", "The exponential of the cross-entropy of a token."
    ),
    **{
        f"distinct_{n}": Metric(
            f"Distinct {what}",
            "%",
            "as real",
            f"Different {what} of written texts over all of them; low where a model writes the same again and again.",
            {f"distinct_{n}_real": "targets"},
        )
        for n, what in ((1, "characters"), (2, "pairs of characters"))
    },
    "unanswered": Metric(
        "Questions without an answer",
        "%",
        "",
        "Share of test questions to which no passage has an answer, says the model.",
    ),
    "bleu_order": Metric("Order of BLEU", "", "", "The longest n-grams that BLEU counts."),
    "written_num_texts": Metric("Texts compared", "", "", "Test texts that written ones are compared with."),
    "frechet_classifier": Metric(
        "Fréchet distance",
        "in classifier features",
        "minimise",
        "Distance between generated and real test images in the features of our own classifier. "
        "It is not the FID of the literature; compare it only with numbers of equal sample size.",
        {
            "frechet_real_vs_real": "real against real",
            "frechet_gaussian": "a Gaussian of training images",
            "frechet_noise": "noise",
        },
    ),
    "frechet_network": Metric(
        "Fréchet distance",
        "in features of the network that judges",
        "minimise",
        "Distance between generated and real test images in the features of a network that is given. "
        "Compare it only with numbers of equal sample size, network and resizing.",
        {
            "frechet_real_vs_real": "real against real",
            "frechet_gaussian": "a Gaussian of training images",
            "frechet_noise": "noise",
        },
    ),
    "kernel_distance": Metric(
        "Kernel distance",
        "squared discrepancy in features",
        "minimise",
        "Unbiased estimate of the squared maximum mean discrepancy between generated and real test images, the mean over "
        "ten blocks: 0 on average for equal distributions, whatever the sample size.",
        {"kernel_distance_spread": "deviation over blocks"},
    ),
    "sample_precision": Metric(
        "Precision of samples",
        "%",
        "maximise",
        "Share of samples no farther from some real image than its fifth nearest real neighbour, in features.",
    ),
    "sample_recall": Metric(
        "Recall of samples",
        "%",
        "maximise",
        "Share of real images no farther from some sample than its fifth nearest sample, in features.",
    ),
    "sample_density": Metric(
        "Density of samples",
        "",
        "as real",
        "Number of neighbourhoods of real images (five nearest) that a sample is in, over five.",
    ),
    "sample_coverage": Metric(
        "Coverage of samples",
        "%",
        "maximise",
        "Share of real images with a sample among their five nearest; near 97 % for real against real.",
    ),
    "class_agreement": Metric(
        "Class asked for",
        "%",
        "maximise",
        "Share of samples in which the judge finds the class that was asked for.",
    ),
    "class_coverage": Metric(
        "Classes found",
        "%",
        "maximise",
        "Share of the classes that have at least a fifth of their share in real images, as the judge finds them.",
    ),
    "class_entropy": Metric(
        "Entropy of classes", "nats", "as real", "Entropy of the shares of the classes that the judge finds."
    ),
    "feature_wasserstein": Metric(
        "Wasserstein-1 distance",
        "in features",
        "minimise",
        "Exact cost of moving samples to as many real test images, in features; above 0 for equal distributions.",
    ),
    "pixel_distance": Metric(
        "Energy distance of pixels",
        "root mean square of [0, 1]",
        "minimise",
        "Unbiased energy distance between samples and real test images, pixel by pixel, where no judge has features: "
        "0 on average for equal distributions.",
    ),
    "wasserstein": Metric(
        "Wasserstein-1 distance",
        "units of the points",
        "minimise",
        "Exact cost of moving samples to as many test points; above 0 for equal distributions.",
    ),
    "sliced_wasserstein": Metric(
        "Sliced Wasserstein-1 distance",
        "units of the points",
        "minimise",
        "Wasserstein-1 distance of projections of samples and test points, the mean over 128 directions.",
    ),
    "high_quality": Metric(
        "Samples near a mode",
        "%",
        "maximise",
        "Share of samples within four standard deviations of the nearest mode.",
    ),
    "modes_found": Metric(
        "Modes found",
        "modes",
        "maximise",
        "Modes with at least 2 % of the samples near them, or half of an equal share where there are more than 25.",
    ),
    "modes_divergence": Metric(
        "Divergence of modes",
        "nats",
        "minimise",
        "Kullback-Leibler divergence of the shares of the modes, among samples near one, from equal shares.",
    ),
    "cross_entropy": Metric(
        "Cross-entropy",
        "nats a character",
        "minimise",
        "Surprise at the real lower line of a test couplet, given its upper line.",
        {
            "cross_entropy_shuffled": "shuffled upper lines",
            "cross_entropy_unigram": "character frequencies",
        },
    ),
    "tone_opposition": Metric(
        "Tone opposition",
        "%",
        "maximise",
        "Share of even positions where the two lines have opposite tones (平 against 仄), as regulated verse asks.",
    ),
    "numeral_antithesis": Metric(
        "Numeral antithesis",
        "%",
        "maximise",
        "Where the upper line has a numeral, how often the lower line answers it with a numeral.",
    ),
    "colour_antithesis": Metric(
        "Colour antithesis",
        "%",
        "maximise",
        "Where the upper line has a colour, how often the lower line answers it with a colour.",
    ),
    "direction_antithesis": Metric(
        "Direction antithesis",
        "%",
        "maximise",
        "Where the upper line has a direction (東, 上, 前, …), how often the lower line answers it with a direction.",
    ),
    "level_ending": Metric(
        "Level ending",
        "%",
        "maximise",
        "Share of lower lines that end in a level tone, as regulated verse asks.",
    ),
    "shared_character": Metric(
        "Shared characters",
        "%",
        "as real",
        "Share of couplets whose lower line uses a character of the upper line again.",
    ),
    "repeated_character": Metric(
        "Repeated characters",
        "%",
        "as real",
        "Share of lower lines that use a character twice.",
    ),
    "trajectory_error": Metric(
        "Error of the trajectory",
        "%",
        "minimise",
        "Root mean squared difference of the states of a split from those of the model, over the size of each coordinate (its root mean "
        "square among the observations). Of several fits it is the median, at each time, of those that agree.",
        {
            "trajectory_error_line": "straight lines between observations, level after the last",
            "trajectory_error_mean": "the mean of the observations",
        },
    ),
    "parameter_error": Metric(
        "Error of the parameters",
        "%",
        "minimise",
        "The largest relative difference of a parameter, the median over the fits that agree, from the one that made the data.",
    ),
    "parameter_spread": Metric(
        "Spread of the parameters",
        "%",
        "minimise",
        "The largest error bar of a parameter: half the distance between the 16th and the 84th percentile of the fits that agree, over the median.",
    ),
    "parameters_covered": Metric(
        "Parameters inside their error bars",
        "%",
        "",
        "Share of the parameters that made the data that lie between the 16th and the 84th percentile of the fits that agree; 68 % were right.",
    ),
    "fits_agreeing": Metric(
        "Fits that agree",
        "%",
        "maximise",
        "Share of the fits whose error at the observations is at most twice that of the best one.",
    ),
    "fit_error": Metric(
        "Error of the best fit at the observations",
        "%",
        "minimise",
        "Root mean squared difference from the observations, over the size of each coordinate.",
    ),
    "num_fits": Metric("Fits", "", "", "Fits that were trained at once."),
    "trajectory_num_observations": Metric("Observations", "", "", "Times at which the system was observed."),
    "reconstruction_mse": Metric(
        "Reconstruction error",
        "mean squared, pixels in [0, 1]",
        "minimise",
        "Distance between test images and what the decoder makes of their codes.",
    ),
    "restoration_mse": Metric(
        "Restoration error",
        "mean squared, pixels in [0, 1]",
        "minimise",
        "Distance between the pixels of test images that are hidden, as many as in training, and what the model puts there.",
    ),
    "neighbour_accuracy": Metric(
        "Class of the nearest code",
        "%",
        "maximise",
        "Share of test examples whose nearest training code is of their class, by 2,000 codes.",
    ),
    "probe_accuracy": Metric(
        "Linear probe",
        "%",
        "maximise",
        "Accuracy of logistic regression on 2,000 training codes, on test codes.",
    ),
    **{
        f"probe_accuracy_{number}": Metric(
            f"Linear probe, {number:,} labels",
            "%",
            "maximise",
            "Accuracy of logistic regression on the codes of so many training examples, on those of all test examples.",
        )
        for number in (100, 1000, 10000, 55000)
    },
    "latent_correlation": Metric(
        "Latent correlation ρ",
        "",
        "maximise",
        "Correlation between a random code and the code that the encoder finds in the image made from it; "
        "1 means that the encoder inverts the generator.",
        constants={"unrelated codes": 0.0},
    ),
    "inversion_error": Metric(
        "Error of the inverse",
        "largest, in units of the data",
        "minimise",
        "Largest difference of a number of 100 test examples from the inverse of their latents, in the precision of the weights; "
        "pixels lie in [0, 1], and a byte is 1/256.",
    ),
    "log_det_error": Metric(
        "Error of the log-determinant",
        "nats, largest",
        "minimise",
        "Largest difference of the log-determinant from that of the whole Jacobian of a test example, in double precision.",
    ),
    **{
        f"frechet_temperature_{percent}": Metric(
            f"Fréchet distance at temperature {percent / 100:g}",
            "in features",
            "minimise",
            "Distance between real test images and 1,000 samples at this temperature, or as many as half of the test images, drawn "
            "with the seed of the project. Compare it only with the other temperatures.",
            {"frechet_temperature_real": "real against real"},
        )
        for percent in (50, 70, 80, 90, 100)
    },
    "caption_num_texts": Metric("Captions compared", "", "", "Test images whose captions were compared."),
    "frechet_num_images": Metric(
        "Images compared", "", "", "Sample size of each side of the Fréchet distances."
    ),
    "frechet_real_vs_real": Metric("Fréchet distance of real images", "in features"),
    "frechet_gaussian": Metric("Fréchet distance of a Gaussian", "in features"),
    "kernel_distance_spread": Metric(
        "Kernel distance: deviation over blocks", "squared discrepancy in features"
    ),
    "neighbour_num_images": Metric(
        "Images compared by neighbours",
        "",
        "",
        "Sample size of each side of precision, recall, density and coverage.",
    ),
    "feature_wasserstein_num_images": Metric(
        "Images moved", "", "", "Sample size of each side of the Wasserstein-1 distance."
    ),
    "pixel_distance_num_images": Metric(
        "Images compared by pixels", "", "", "Sample size of each side of the energy distance of pixels."
    ),
    "wasserstein_num_points": Metric(
        "Points moved", "", "", "Sample size of each side of the Wasserstein-1 distance."
    ),
    "sliced_wasserstein_num_points": Metric(
        "Points compared", "", "", "Sample size of each side of the sliced Wasserstein-1 distance."
    ),
    "bound_num_examples": Metric("Examples bounded", "", "", "Test examples that the bounds are means over."),
    "bound_num_latents": Metric("Latents of each", "", "", "Latents drawn for each example of the bounds."),
    "probe_num_codes": Metric(
        "Training codes", "", "", "Codes that the probe and the nearest code are out of."
    ),
    "frechet_noise": Metric("Fréchet distance of noise", "in features"),
    "frechet_temperature_real": Metric(
        "Fréchet distance of real images, at the size of the temperatures", "in features"
    ),
    "frechet_temperature_num_images": Metric(
        "Images compared by temperature", "", "", "Sample size of each side of the distances by temperature."
    ),
}

# Columns of training curves: every scalar that a loss logs. A column UPDATE.METRIC is explained by its whole name or by METRIC.
CURVES: dict[str, Metric] = {
    "nll.loss": Metric(
        "Negative log-likelihood",
        "nats",
        "minimise",
        "Of images it is minus the logarithm of a density, which can be above 1: a healthy one falls below 0.",
    ),
    "loss": Metric("Loss", "", "minimise", "What the optimiser minimises."),
    "ngram": Metric(
        "n-grams of lower lines",
        "nats a character",
        "minimise",
        "Surprise at a character after the two before it.",
    ),
    "unigram": Metric(
        "Frequencies of characters", "nats a character", "minimise", "The same by frequency alone."
    ),
    "tones": Metric(
        "Rules of tones",
        "nats a character",
        "minimise",
        "Surprise at the tones that the rules ask for, where the tone of each character is learned.",
    ),
    "grad_norm": Metric(
        "Norm of the gradients",
        "",
        "",
        "Before it is clipped; far above the bound, clipping decides the step.",
    ),
    "fit.loss": Metric(
        "Squared error at the observations",
        "of the size of each coordinate",
        "minimise",
        "The mean over fits, so those that are stuck decide it: look at the logarithm beside it too.",
    ),
    "fit.digits": Metric(
        "Decimal logarithm of the error",
        "",
        "minimise",
        "The mean over fits and observations: −2 is 1 % of the size of a coordinate.",
    ),
    "masked.loss": Metric(
        "Surprise at hidden tokens",
        "nats",
        "minimise",
        "It rests at the entropy of single tokens first, and falls further once the network looks at neighbours.",
    ),
    "masked.accuracy": Metric("Accuracy of hidden tokens", "%", "maximise"),
    "similarity.loss": Metric(
        "Loss of similarity",
        "nats",
        "minimise",
        "What a text costs, by the loss of its block; values of two losses, scales or margins cannot be compared.",
    ),
    "similarity.accuracy": Metric(
        "Texts whose group is found",
        "%",
        "maximise",
        "Of a loss of classes: whose group has the nearest vector. Of a loss of pairs: whose nearest text of the slice is of the same group.",
    ),
    "replaced.loss": Metric(
        "Surprise at whether a token was replaced",
        "nats",
        "minimise",
        "It may rise as the generator learns to replace tokens by likely ones.",
    ),
    "replaced.accuracy": Metric("Tokens known as replaced or not", "%", "maximise"),
    "replaced.replaced": Metric(
        "Tokens that were replaced", "%", "", "Falls as the generator finds the right one more often."
    ),
    "correlation": Metric(
        "Latent correlation ρ", "", "maximise", "1 where the encoder inverts the generator."
    ),
    "score_gap": Metric(
        "Critic score, real minus generated", "", "", "It falls towards 0 as the critic loses the difference."
    ),
    "slope": Metric(
        "Slope of the critic where its penalty looks", "", "", "The penalty holds it near its target, or low."
    ),
    "squared_slope": Metric(
        "Squared slope of the energy",
        "",
        "",
        "Squared gradient by real examples, which the penalty holds low.",
    ),
    "moved": Metric("Move of the generator since the critic's turn", "mean squared"),
    "generator": Metric("Loss of the generator"),
    "mse": Metric("Squared error of pixels in [0, 1]", "", "minimise"),
    "energy_gap": Metric(
        "Energy, generated minus real",
        "",
        "",
        "Near 0 where samples are like the data; a gap that only grows is divergence.",
    ),
    "energy_real": Metric("Energy of real examples", "", "", "Its level is free; only differences count."),
    "energy_made": Metric(
        "Energy of generated examples", "", "", "Its level is free; only differences count."
    ),
    "information": Metric(
        "Information about the codes, as the second network reads it",
        "nats",
        "maximise",
        "A lower bound: at 0 the generator ignores its codes.",
    ),
    "distortion": Metric(
        "Distortion",
        "nats an example",
        "minimise",
        "Surprise at an example, given its code: what is lost of it.",
    ),
    "rate": Metric(
        "Rate",
        "nats an example",
        "",
        "Divergence of the posterior of codes from the prior; at 0 the codes say nothing.",
    ),
    "code_square": Metric(
        "Mean square of codes", "", "as real", "1 for codes like those of the standard Gaussian prior."
    ),
    "code_error": Metric(
        "Error of codes",
        "mean squared",
        "minimise",
        "Between a code and the code found in the example made from it; 2 for unrelated ones.",
    ),
    "example_error": Metric(
        "Error of examples",
        "mean squared",
        "minimise",
        "Between an example and what the generator makes of its code.",
    ),
}

# A metric NAME + suffix is a baseline of NAME.
BASELINE_SUFFIXES = {
    "_line": "straight lines between observations",
    "_mean": "the mean of the observations",
    "_real": "real",
    "_shuffled": "shuffled",
    "_singly": "each character by itself",
    "_unigram": "frequencies alone",
    "_bigram": "bigrams alone",
    "_mean_image": "always the mean image",
    "_other_image": "another image",
    "_noise": "noise",
    "_majority": "always the most frequent one",
    "_constant": "always the training text that shares most with the others",
    "_nearest": "the text of the nearest training row",
    "_zero": "a vector of zeros",
    "_copy": "a copy of what was read",
    "_gaussian": "a Gaussian",
    "_random": "at random",
    "_pixelwise": "independent pixels",
    "_raw": "the pixels or coordinates themselves",
    "_tf_idf": "counts of tokens, weighed by their rarity",
    "_bag": "counts of tokens",
    "_naive_bayes": "naive Bayes over tokens",
    "_singles": "a word for each character",
}


def find(name: str) -> Metric | None:
    """The metric of this name; `SPLIT.NAME` is NAME on another split than test, NAME + suffix a baseline of NAME."""
    split, _, plain = name.rpartition(".")
    if plain in METRICS:
        metric = METRICS[plain]
        return Metric(f"{metric.label} ({split})", *_rest(metric)) if split else metric
    for suffix, what in BASELINE_SUFFIXES.items():
        base = plain.removesuffix(suffix)
        if base != plain and base in METRICS:
            metric = METRICS[base]
            return Metric(f"{metric.label}: {what}", metric.unit, explanation=metric.explanation)
    return None


def metric(name: str, where: str) -> Metric:
    """The metric of this name, or the error, begun with `where`, that lists those there are."""
    found = find(name)
    if found is None:
        raise BadInput(f"{where}: no metric {name!r}; there is: {', '.join(METRICS)}")
    return found


def is_maximised(name: str, where: str) -> bool:
    """Whether more of a metric is better; BadInput where it is unknown or neither more nor less of it is better."""
    direction = metric(name, where).direction
    if direction not in ("maximise", "minimise"):
        raise BadInput(
            f"{where}: neither more nor less of {name!r} is better; take one of: {', '.join(ordered())}"
        )
    return direction == "maximise"


def ordered() -> list[str]:
    """The metrics of which more or less is better, the most important first."""
    return [name for name, metric in METRICS.items() if metric.direction in ("maximise", "minimise")]


def explained(column: str) -> Metric:
    """The metric or curve of a column; an unknown column of a curve keeps its name."""
    return (
        find(column)
        or CURVES.get(column)
        or CURVES.get(column.rpartition(".")[2])
        or METRICS.get(column.rpartition(".")[2])
        or Metric(column)
    )


def _rest(metric: Metric) -> tuple:
    return metric.unit, metric.direction, metric.explanation, metric.baselines, metric.constants
