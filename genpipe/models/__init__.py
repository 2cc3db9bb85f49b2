"""The one list of recipes: file name → class."""

from genpipe.models.aae import AAE
from genpipe.models.ali import ALI
from genpipe.models.classifier import Classifier
from genpipe.models.conditional_lm import ConditionalLM
from genpipe.models.couplet import Couplet
from genpipe.models.coupling_flow import CouplingFlow
from genpipe.models.crf_tagger import CRFTagger
from genpipe.models.energy import EnergyModel
from genpipe.models.energy_gan import EnergyGAN
from genpipe.models.gan import GAN
from genpipe.models.glann import GLANN
from genpipe.models.glow import Glow
from genpipe.models.mae import MAE
from genpipe.models.masked_lm import MaskedLM
from genpipe.models.nice import NICE
from genpipe.models.ode_rnn import ODERNN
from genpipe.models.ogan import OGAN
from genpipe.models.pixelcnn import PixelCNN
from genpipe.models.pixelrnn import PixelRNN
from genpipe.models.residual_flow import ResidualFlow
from genpipe.models.similarity import Similarity
from genpipe.models.text_classifier import TextClassifier
from genpipe.models.title_lstm import TitleLSTM
from genpipe.models.unilm import UniLM
from genpipe.models.vae import VAE
from genpipe.recipe import Recipe

RECIPES: dict[str, type[Recipe]] = {
    "aae": AAE,
    "ali": ALI,
    "classifier": Classifier,
    "conditional_lm": ConditionalLM,
    "couplet": Couplet,
    "coupling_flow": CouplingFlow,
    "crf_tagger": CRFTagger,
    "energy": EnergyModel,
    "energy_gan": EnergyGAN,
    "gan": GAN,
    "glann": GLANN,
    "glow": Glow,
    "mae": MAE,
    "masked_lm": MaskedLM,
    "nice": NICE,
    "ode_rnn": ODERNN,
    "ogan": OGAN,
    "residual_flow": ResidualFlow,
    "pixelcnn": PixelCNN,
    "pixelrnn": PixelRNN,
    "similarity": Similarity,
    "text_classifier": TextClassifier,
    "title_lstm": TitleLSTM,
    "unilm": UniLM,
    "vae": VAE,
}
