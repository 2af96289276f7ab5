// Waiting that does not count while the machine, or this process, stands still.

const tickMs = 250

/** Settles after so long, in ticks of this process; `signal` gives it up. It keeps no process alive. */
export const patience = (ms: number, signal: AbortSignal): Promise<"late" | "given up"> =>
  new Promise((resolve) => {
    let ticks = Math.ceil(ms / tickMs)
    const timer = setInterval(() => {
      if (--ticks <= 0) end("late")
    }, tickMs)
    const end = (how: "late" | "given up") => {
      clearInterval(timer)
      resolve(how)
    }
    timer.unref()
    signal.addEventListener("abort", () => end("given up"), { once: true })
  })
