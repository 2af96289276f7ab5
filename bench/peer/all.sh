#!/bin/bash
# all.sh COMMAND...: runs them side by side as one application, and ends all of them when it is told to end or one of them does.
pids=()
for command in "$@"; do
  eval "exec $command" &
  pids+=($!)
done
trap 'kill "${pids[@]}" 2>/dev/null' TERM INT
wait -n "${pids[@]}"
kill "${pids[@]}" 2>/dev/null
wait "${pids[@]}"
