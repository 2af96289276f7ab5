// Timers and sent commands in memory, for the test kit: what `millrace.timer` and its worker are on PostgreSQL.
import type { CommandChanges, PendingCommand } from "./commands.ts"

/** A command that waits for its time. */
export type WaitingCommand = Omit<PendingCommand, "timer"> & {
  readonly timer: { readonly name: string; readonly at: number }
}
const textOf = ({ key, name }: { readonly key: string; readonly name: string }) => JSON.stringify([key, name])

/** A command that was sent, by a timer or at once. */
export type SentCommand = Omit<PendingCommand, "timer"> & { readonly timer: { readonly name: string } | undefined }
/** The timers of one projection that wait, and its commands that were sent, in their order. */
export class MemoryTimers {
  readonly sent: Array<SentCommand> = []
  private readonly byName = new Map<string, WaitingCommand>()
  /** Those of the commits since the clock was last looked at, which are due some time after that. */
  private fresh: Array<readonly [string, PendingCommand, number]> = []

  /** The timers that wait, the next one first. */
  get waiting(): ReadonlyArray<WaitingCommand> {
    return [...this.byName.values()].toSorted((a, b) => a.timer.at - b.timer.at)
  }
  /** Sets and cancels timers, and sends commands. */
  apply({ cancelled, pending }: CommandChanges): void {
    for (const name of cancelled) this.drop(textOf(name))
    for (const command of pending) {
      const { key, timer } = command
      if (timer === undefined) {
        this.sent.push(command)
        continue
      }
      const { afterMs, at, name } = timer
      const text = textOf({ key, name })
      this.drop(text)
      if (at === undefined) this.fresh.push([text, command, afterMs ?? 0])
      else this.byName.set(text, { ...command, timer: { name, at } })
    }
  }
  private drop(text: string): void {
    this.byName.delete(text)
    this.fresh = this.fresh.filter(([name]) => name !== text)
  }
  /** Sends the commands of the timers that are due at a time. */
  fire(nowMs: number): void {
    for (const [text, command, afterMs] of this.fresh.splice(0))
      this.byName.set(text, { ...command, timer: { name: command.timer!.name, at: nowMs + afterMs } })
    for (const command of this.waiting) {
      if (command.timer.at > nowMs) return
      this.byName.delete(textOf({ key: command.key, name: command.timer.name }))
      this.sent.push(command)
    }
  }
}
