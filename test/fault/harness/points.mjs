// Loaded first by processes of a patched copy: kills or stops the process when a named point is reached. It is not part of a release.
//
// MILLRACE_POINT is `kill:NAME:NTH` or `stop:NAME:NTH`: SIGKILL or SIGSTOP to this process when the point is reached the nth time.
// With `step:NAME:NTH` the process is stopped there, and once more as soon as the database has answered what it sends after SIGCONT.
// With `tell:NAME:NTH` it says that it is there, and goes on.
import * as Module from "node:module"
import process from "node:process"

const [deed = "", name = "", nth = "1"] = (process.env["MILLRACE_POINT"] ?? "").split(":")
const signal = deed === "kill" ? "SIGKILL" : "SIGSTOP"
let count = 0
let afterStop = 0

/** Every point calls this. */
globalThis.reached = (point) => {
  if (point !== name || ++count !== Number(nth)) return
  if (deed === "tell") process.stderr.write("point: reached\n")
  else process.kill(process.pid, signal)
}

/** Called when the database has answered a statement with commits, `fenced` of which were fenced. */
globalThis.answered = (fenced) => {
  const stopped = signal === "SIGSTOP" && count >= Number(nth)
  if (fenced > 0 || stopped)
    process.stderr.write(`point: ${fenced} fenced, answer ${stopped ? ++afterStop : 0} since\n`)
  if (deed === "step" && afterStop === 1) process.kill(process.pid, signal)
}

/** Called when a partition has been claimed. */
globalThis.claimed = () => process.stderr.write("point: claimed\n")

// a killed process would not write its compile cache
setTimeout(() => Module.flushCompileCache?.(), 3_000).unref?.()

// the harness holds the other end of standard input, so this process ends when the harness does, however that ends
process.stdin.on("error", () => undefined)
process.stdin.on("close", () => process.kill(process.pid, "SIGKILL"))
process.stdin.on("end", () => process.kill(process.pid, "SIGKILL"))
process.stdin.resume()
process.stdin.unref?.()
