#!/usr/bin/python3
"""Some hundred inputs of converter.py, always the same ones."""
import subprocess
import sys
from pathlib import Path

done = subprocess.run([sys.executable, Path(__file__).with_name("converter.py"), "--count", "300"],
                      stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
passed = done.returncode == 0 and "number_of_executed_units: 300" in done.stdout
if not passed:
    print(done.stdout)
print(f"{int(passed)} passed, {int(not passed)} failed")
sys.exit(not passed)
