# shellcheck shell=bash
# Where the ranks of a job meet; sourced by common.sh.

# The first node's address as the others see it: its name, unless that leads to loopback here, as Debian has
# it for a host's own name (127.0.1.1). Then the address by which this node reaches the second.
master_address() { # HOST [OTHER_HOST]
  local own other
  own=$(getent ahostsv4 "$1" | awk '{ print $1; exit }')
  if [[ $own == 127.* ]] && [ -n "${2:-}" ]; then
    other=$(getent ahostsv4 "$2" | awk '{ print $1; exit }')
    own=$(ip -4 route get "$other" 2>/dev/null | sed -n 's/.* src \([0-9.]*\).*/\1/p' | head -n 1)
    if [ -n "$own" ]; then echo "$own"; return; fi
  fi
  echo "$1"
}

# A port nobody listens at here, outside of the range that the kernel hands out to others; it depends on
# the job, so that two on one machine do not meet. RANGE_FILE is for tests.
free_port() { # JOB_ID [RANGE_FILE]
  local low high base=20000 width=10000 i port
  read -r low high <"${2:-/proc/sys/net/ipv4/ip_local_port_range}"
  if ((low < base + width && high >= base)); then # they overlap: take what lies below, else above
    if ((low > 11024)); then
      base=$((low - 10000))
    elif ((high < 65000)); then
      base=$((high + 1)) width=$((65535 - high))
    elif ((low > 2048)); then
      base=1024 width=$((low - 1024))
    fi
  fi
  for ((i = 0; i < width; i++)); do
    port=$((base + ($1 + i) % width))
    (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || break
  done
  echo "$port"
}
