// Keeps processes from starting while a service is down: every one that runs bears it, one that only starts would end with a clear error.
import type { Fleet } from "./fleet.ts"

/** What a gate needs of a run. */
export interface Guarded {
  readonly fleet: Fleet
  readonly until: (what: string, ask: () => boolean) => Promise<void>
}
/** A gate that processes start through. */
export class Gate {
  /** Resolves when it is open. */
  passage: Promise<void> = Promise.resolve()

  /** Closes it once all processes are up, for as long as `use` runs. Those that come meanwhile wait for their turn. */
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
