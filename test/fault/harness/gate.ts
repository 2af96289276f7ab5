// Keeps processes from starting while a service is down: a running process tolerates that, but one that starts ends with an error.
import type { Fleet } from "./fleet.ts"

/** What the gate needs of a run. */
export interface Guarded {
  readonly fleet: Fleet
  readonly until: (what: string, ask: () => boolean) => Promise<void>
}
/** Steps wait for it before they start a process. */
export class Gate {
  /** Resolves when the gate is open. */
  passage: Promise<void> = Promise.resolve()

  /** Waits until all processes have started, then keeps the gate closed while `use` runs. Calls take turns. */
  async closed(run: Guarded, use: () => Promise<void>): Promise<void> {
    let open = () => undefined as void
    await this.passage
    this.passage = new Promise((resolve) => (open = resolve))
    try {
      await run.until("start of all processes", () => run.fleet.workers.every(({ stopped, up }) => up || stopped))
      await use()
    } finally {
      open()
    }
  }
}
