# Sourced by the other scripts: activates an environment in which latent_prior is installed.
# Creates .venv if no environment is active; does nothing if setup.py and constraints.txt are already installed.
# usage: [EXTRAS=dev] . launch_scripts/setup.sh     (a sourced script sees its caller's arguments, so it takes none)
cd "$(dirname "${BASH_SOURCE[0]}")/.."

if [ -z "${VIRTUAL_ENV:-}" ] && [ -z "${CONDA_PREFIX:-}" ]; then
  if [ ! -x .venv/bin/python ]; then
    python3 -c 'import sys; sys.exit(sys.version_info < (3, 10))' || {
      echo "error: latent_prior needs Python 3.10 or later; $(command -v python3) is $(python3 --version)" >&2
      exit 2
    }
    echo "Creating the environment .venv ..."
    python3 -m venv .venv
  fi
  . .venv/bin/activate
fi

extras="${EXTRAS:-}"
stamp="$(python -c 'import sys; print(sys.prefix)')/.latent_prior_installed${extras:+-$extras}"
wanted="$PWD $(cat setup.py constraints.txt | cksum)"
if [ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ]; then
  echo "Installing latent_prior and its dependencies (once; a minute or two) ..."
  # torch first and pinned: with a version range, the resolver may pull in several gigabytes of CUDA
  python -m pip install --quiet --disable-pip-version-check "$(grep '^torch==' constraints.txt)"
  python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".${extras:+[$extras]}"
  echo "$wanted" > "$stamp"
fi
