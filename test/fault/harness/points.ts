// Named points of the source: patches that call `reached` there, at which `points.mjs` can kill or stop a process.
import type { Patch } from "./patched-copy.ts"

/** A place in the source with a name. */
export interface Point extends Patch {
  readonly name: string
  /** A process reaches it at least so often, which limits at which time it can be killed there. */
  readonly often: number
}
/** The call that tells `points.mjs` that a point is reached. */
export const reached = (name: string): string => `globalThis.reached(${JSON.stringify(name)})`
/** Delays a call until the driver or the client has written: they write at the end of this turn of the event loop. */
export const afterWriting = (call: string): string => `setImmediate(() => setImmediate(() => ${call}))`

/**
 * With MILLRACE_GREED set, a relay takes every lane, even if another relay has it. Then only transactional ids, or producer names, keep the
 * order.
 */
export const greed: Patch = {
  file: "src/postgres/relay/lanes.ts",
  find: "  if (session.pid() === undefined) return nothing\n",
  replace:
    '  if (process.env["MILLRACE_GREED"] !== undefined) return { held: Array.from({ length: lanes }, (_, i) => i), surplus: 0 }\n' +
    "  if (session.pid() === undefined) return nothing\n"
}
