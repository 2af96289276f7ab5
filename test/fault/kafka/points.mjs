// Loaded first by a patched copy of the command: ends or stops the process when a named point is reached. It is in no release.
//
// MILLRACE_POINT is `kill:NAME:NTH` or `stop:NAME:NTH`: SIGKILL or SIGSTOP to this process when the point is reached the nth time.
// With `step:NAME:NTH` it stops there, and again as soon as the database has answered what it sends once it goes on.
import * as Module from "node:module"
import process from "node:process"

const [deed = "", name = "", nth = "1"] = (process.env["MILLRACE_POINT"] ?? "").split(":")
const signal = deed === "kill" ? "SIGKILL" : "SIGSTOP"
let count = 0
let afterStop = 0

/** Called at every point of a patched tree. */
globalThis.reached = (point) => {
  if (point === name && ++count === Number(nth)) process.kill(process.pid, signal)
}

/** Called when the database has answered a statement of commits: so many of them are fenced. */
globalThis.answered = (fenced) => {
  const stopped = signal === "SIGSTOP" && count >= Number(nth)
  if (fenced > 0 || stopped)
    process.stderr.write(`point: ${fenced} fenced, answer ${stopped ? ++afterStop : 0} since\n`)
  if (deed === "step" && afterStop === 1) process.kill(process.pid, signal)
}

/** Called when a partition was claimed. */
globalThis.claimed = () => process.stderr.write("point: claimed\n")

// what is killed leaves no cache by itself
setTimeout(() => Module.flushCompileCache?.(), 3_000).unref?.()

// whoever started it holds the other end: when that process is gone, however, this one goes
process.stdin.on("error", () => undefined)
process.stdin.on("close", () => process.kill(process.pid, "SIGKILL"))
process.stdin.on("end", () => process.kill(process.pid, "SIGKILL"))
process.stdin.resume()
process.stdin.unref?.()
