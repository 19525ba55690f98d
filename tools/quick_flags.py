"""Print the XLA flags with which the gate compiles, of those that the installed jaxlib knows.

The gate compiles more than it computes: programs are left unoptimised there, and only there. An
unknown flag ends a process, and a release may drop one, so each is tried in a process of its own.
"""

import os
import subprocess
import sys

WANTED = (
    "--xla_backend_optimization_level=0",
    "--xla_llvm_disable_expensive_passes=true",
    "--xla_cpu_parallel_codegen_split_count=1",
    "--xla_cpu_use_fusion_emitters=false",  # compiles four times as fast; gone in jaxlib 0.12
)


def known(*flags: str) -> bool:
    environment = {**os.environ, "XLA_FLAGS": " ".join(flags), "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-c", "import jax; jax.devices()"],
        env=environment,
        capture_output=True,
        check=False,
    )
    return done.returncode == 0


if __name__ == "__main__":
    print(*(WANTED if known(*WANTED) else filter(known, WANTED)))
