// Timers and sent commands in memory, for the test kit: what `millrace.timer` and its worker are on PostgreSQL.
import type { CommandChanges, PendingCommand } from "./commands.ts"

/** A command that waits for its time. */
export type WaitingCommand = PendingCommand & { readonly timer: NonNullable<PendingCommand["timer"]> }
const textOf = ({ key, name }: { readonly key: string; readonly name: string }) => JSON.stringify([key, name])

/** The timers of one projection that wait, and its commands that were sent, in their order. */
export class MemoryTimers {
  readonly sent: Array<PendingCommand> = []
  private readonly byName = new Map<string, WaitingCommand>()

  /** The timers that wait, the next one first. */
  get waiting(): ReadonlyArray<WaitingCommand> {
    return [...this.byName.values()].toSorted((a, b) => a.timer.at - b.timer.at)
  }
  /** Sets and cancels timers, and sends commands. */
  apply({ cancelled, pending }: CommandChanges): void {
    for (const name of cancelled) this.byName.delete(textOf(name))
    for (const command of pending) {
      const { key, timer } = command
      if (timer === undefined) this.sent.push(command)
      else this.byName.set(textOf({ key, name: timer.name }), { ...command, timer })
    }
  }
  /** Sends the commands of the timers that are due at a time. */
  fire(nowMs: number): void {
    for (const command of this.waiting) {
      if (command.timer.at > nowMs) return
      this.byName.delete(textOf({ key: command.key, name: command.timer.name }))
      this.sent.push(command)
    }
  }
}
