"""Log-mel filterbank features of a clip, as Kaldi computes them."""

from dataclasses import dataclass

import numpy as np

from encsel.core import SAMPLING_RATE, Clip, Vectors
from encsel.extras import imported

LIBRARY = "kaldi-native-fbank"
WINDOW, SHIFT = 400, 160
"""Samples: 25 ms every 10 ms."""


@dataclass(frozen=True)
class Fbank:
    """The features of a speaker toolkit: WeSpeaker's, or those of 3D-Speaker.

    Source: compute_fbank in wespeaker/bin/infer_onnx.py; class FBank in 3D-Speaker's speakerlab/process/processor.py.
    """

    n_mels: int
    of_3dspeaker: bool = False

    @property
    def window(self) -> str:
        return "povey" if self.of_3dspeaker else "hamming"

    @property
    def scale(self) -> int:
        """What samples in [-1, 1] are multiplied by: quiet bands meet the floor of the logarithm, 1.2e-7."""
        return 1 if self.of_3dspeaker else 1 << 15

    def __str__(self) -> str:
        return (
            f"{self.n_mels} log mel bands, 20 Hz to 8 kHz, of the power spectrum (512 points), by Kaldi; 25 ms every "
            f"10 ms, {self.window} window, no dither, preemphasis 0.97, offset removed, edges snipped, no energy; "
            f"samples times {self.scale}; mean over frames subtracted"
        )

    def __call__(self, clip: Clip) -> Vectors:
        """(frames, n_mels) float32 of a clip of at least WINDOW samples."""
        knf = imported("kaldi_native_fbank")
        options = knf.FbankOptions()
        options.frame_opts.samp_freq = SAMPLING_RATE
        options.frame_opts.dither = 0.0
        options.frame_opts.window_type = self.window
        options.mel_opts.num_bins = self.n_mels
        computer = knf.OnlineFbank(options)
        computer.accept_waveform(SAMPLING_RATE, clip * np.float32(self.scale))
        computer.input_finished()
        features = np.array([computer.get_frame(i) for i in range(computer.num_frames_ready)], np.float32)
        return features - features.mean(axis=0)
