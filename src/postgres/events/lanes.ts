// Gathers appends into statements: at most four are under way in a process, each with the commands that waited for it meanwhile.
import type { AppendRow } from "./append-sql.ts"

/** How many statements are under way at once. A partition's appends are in one lane, so that none waits for another's lock. */
const laneCount = 4
/** Limits of one statement: commands, and characters of their values. It takes at least one command. */
const statementCommands = 200
const statementCharacters = 4 << 20
/** How many commands may wait at most. */
export const waitingCommands = 10_000

/** A command that waits for a statement. */
export interface Waiting<A extends AppendRow> {
  readonly row: A
}

const streamOf = ({ row: { stream, topicId } }: Waiting<AppendRow>) => `${topicId} ${stream}`
/** Whether a command may follow one of the same stream in a statement: what it expects is what the one before leaves. */
const follows = (before: AppendRow, row: AppendRow) =>
  row.commandId !== before.commandId &&
  (row.expected < 0
    ? row.expected === before.expected
    : before.expected >= 0 && row.expected === before.expected + before.records)

/**
 * Takes the commands of the next statement from the front of a queue, and returns the others. Commands of one stream keep their order: once
 * one of them has to wait, so do those after it.
 */
export const takeStatement = <W extends Waiting<AppendRow>>(
  queue: ReadonlyArray<W>
): { readonly taken: ReadonlyArray<W>; readonly rest: Array<W> } => {
  const taken: Array<W> = []
  const rest: Array<W> = []
  const last = new Map<string, AppendRow | "waits">()
  const ids = new Map<string, Set<string>>()
  let characters = 0
  for (const [at, waiting] of queue.entries()) {
    if (taken.length === statementCommands || characters > statementCharacters) {
      rest.push(...queue.slice(at))
      break
    }
    const { row } = waiting
    const key = streamOf(waiting)
    const before = last.get(key)
    const isTwice = ids.get(key)?.has(row.commandId) === true
    if (before === "waits" || isTwice || (before !== undefined && !follows(before, row))) {
      last.set(key, "waits")
      rest.push(waiting)
      continue
    }
    taken.push(waiting)
    last.set(key, row)
    ids.set(key, (ids.get(key) ?? new Set()).add(row.commandId))
    characters += row.vals.length
  }
  return { taken, rest }
}

/** Sends commands lane by lane. `send` settles all commands that it is given, and never rejects. */
export class Lanes<W extends Waiting<AppendRow>> {
  private readonly queues: Array<Array<W>> = Array.from({ length: laneCount }, () => [])
  private readonly busy: Array<boolean> = Array.from({ length: laneCount }, () => false)
  private readonly send: (commands: ReadonlyArray<W>) => Promise<void>

  constructor(send: (commands: ReadonlyArray<W>) => Promise<void>) {
    this.send = send
  }
  /** How many commands wait. */
  waiting(): number {
    return this.queues.reduce((sum, queue) => sum + queue.length, 0)
  }
  add(command: W): void {
    const lane = command.row.partition % laneCount
    this.queues[lane]!.push(command)
    if (this.busy[lane] === true) return
    this.busy[lane] = true
    // a microtask later, so that appends of other fibers in this turn of the event loop go into the same statement
    queueMicrotask(() => void this.flush(lane))
  }
  /** Takes a command out that was not sent yet. */
  remove(command: W): void {
    const queue = this.queues[command.row.partition % laneCount]!
    const at = queue.indexOf(command)
    if (at >= 0) queue.splice(at, 1)
  }
  private async flush(lane: number): Promise<void> {
    while (this.queues[lane]!.length > 0) {
      const { rest, taken } = takeStatement(this.queues[lane]!)
      this.queues[lane] = rest
      await this.send(taken)
    }
    this.busy[lane] = false
  }
}
