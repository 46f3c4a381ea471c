#!/usr/bin/env bash

#PBS -N aetdist
#PBS -l select=1:ncpus=8:mem=30GB
#PBS -l walltime=04:00:00
#PBS -e aetdist-logs/
#PBS -o aetdist-logs/
#PBS -S /bin/bash
scratch="${TMPDIR:-/tmp}/aetdist-$(id -u)"
mkdir -p -m 700 "$scratch" && [ -O "$scratch" ] || scratch="$(mktemp -d)"
export NUMBA_CACHE_DIR="$scratch/numba"
export NUMBA_NUM_THREADS=1
export OMP_NUM_THREADS=1
export OPENBLAS_NUM_THREADS=1
export MKL_NUM_THREADS=1
export OMP_WAIT_POLICY=passive
PYTHON -m distributed.cli.dask_worker tls://10.0.0.1:8786 --name aetdist-0 --nthreads 1 --memory-limit 3.73GiB --nworkers 8 --nanny --death-timeout 120 --local-directory "$scratch" --lifetime 3h50m --lifetime-stagger 5m --dashboard-address 127.0.0.1:0 --protocol tls:// --tls-ca-file /home/me/.cache/aetdist/tls.pem --tls-cert /home/me/.cache/aetdist/tls.pem --tls-key /home/me/.cache/aetdist/tls.pem
