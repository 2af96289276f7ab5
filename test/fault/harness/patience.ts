// A timeout that does not count the time in which the machine, or this process, is suspended.

const tickMs = 250

/** Resolves with "late" after so many milliseconds in which this process ran, or with "given up" on `signal`. Does not keep the process alive. */
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
