"""`python -m hf_detr_ft.pretraining RECIPE …`: training with what teaches a DETR that knows nothing yet.

`accelerate launch -m hf_detr_ft.pretraining RECIPE …` does it in several processes.
"""

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from hf_detr_ft.cli import report_errors
from hf_detr_ft.model.build import build_model
from hf_detr_ft.model.detector import Detector
from hf_detr_ft.pretraining.new_decoder import DECODER, init_queries_from_encoder
from hf_detr_ft.pretraining.taught_encoder import teach_encoder
from hf_detr_ft.recipe.sections import ModelConfig, SpeedConfig
from hf_detr_ft.runs.train import train


def pretrain(path: Path, flags: Sequence[str], encoder_loss: float = 0.0, new_decoder: bool = False) -> int:
    """Trains as `hf-detr-ft train` does.

    Args:
        path: the recipe.
        flags: over it.
        encoder_loss: weight of a loss that asks the encoder's positions for objects; a new DETR learns many times as
            fast with it, a trained one does not need it. DETR has none.
        new_decoder: start the decoder anew, each query reading out the encoder around a point of its own, for a
            checkpoint whose encoder was taught by `encoder_loss`; its `num_queries`, `decoder_layers` and
            `decoder_ffn_dim` in `model.config` may then be other ones.
    """
    return train(path, flags, partial(build_pretraining_model, encoder_loss=encoder_loss, new_decoder=new_decoder))


def build_pretraining_model(
    config: ModelConfig,
    names: Sequence[str],
    category_ids: Sequence[int],
    speed: SpeedConfig,
    *,
    encoder_loss: float,
    new_decoder: bool,
) -> Detector:
    """`build_model` and what is asked for besides; see `pretrain`."""
    model = build_model(config, names, category_ids, speed, made_anew=DECODER if new_decoder else ())
    if new_decoder:
        init_queries_from_encoder(model)
    if encoder_loss:
        teach_encoder(model, encoder_loss)
    return model


def main(arguments: Sequence[str] | None = None) -> int:
    """Takes its own two flags out of the arguments; the others are those of `hf-detr-ft train`."""
    parser = argparse.ArgumentParser(prog="python -m hf_detr_ft.pretraining", description=__doc__, allow_abbrev=False)
    parser.add_argument("recipe", type=Path, metavar="RECIPE")
    parser.add_argument("--encoder-loss", type=float, default=0.0, metavar="WEIGHT", help="default: 0, none")
    parser.add_argument("--new-decoder", action="store_true")
    options, flags = parser.parse_known_args(arguments)
    return report_errors(lambda: pretrain(options.recipe, flags, options.encoder_loss, options.new_decoder))


if __name__ == "__main__":
    sys.exit(main())
