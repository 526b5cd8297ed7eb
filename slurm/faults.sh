# shellcheck shell=bash
# Which failures are a machine's rather than the program's; sourced by common.sh.

# What CUDA and NCCL say of a broken GPU, link or peer. An illegal access may be the program's own fault,
# which is why a job is started again a few times only.
FAULTS='CUDA error: (an illegal memory access|uncorrectable ECC error|unspecified launch failure|the launch timed out)|uncorrectable NVLink|CUDA-capable device\(s\) is/are busy|GPU is lost|fallen off the bus|nccl(Remote|System|Internal|UnhandledCuda)Error|NCCL error|Watchdog caught collective operation timeout'

# One line that says what a machine did, from the status of the rank that ended first and its log since this
# start; nothing where the program is to blame.
fault_of() { # STATUS RANK_LOG
  local said
  said=$(awk '/^igrpo \[rank [0-9]+ on / { text = "" } { text = text $0 "\n" } END { printf "%s", text }' "$2" 2>/dev/null |
    grep -m 1 -oE "($FAULTS).{0,80}" || true)
  case $1 in
    70) echo "${said:-a hang, by the watchdog}" ;;
    134 | 135) echo "${said:-ended by signal $(($1 - 128))}" ;; # NCCL's watchdog aborts; a bus error
    1) [ -z "$said" ] || echo "$said" ;;
  esac
}
