// Gathers appends into statements: two are under way in a process, or four while many commands wait, each with those that waited for it meanwhile.
import type { AppendRow } from "./append-sql.ts"

/**
 * How many statements are under way at most. A partition's appends are in one lane, so that none waits for another's lock. Two lanes are a pair,
 * which shares a statement while few commands wait: setting up a statement takes the server as long as running it for eight commands.
 */
const laneCount = 4
const pairCount = laneCount / 2
/** How many commands must wait in a lane for a statement without those of its pair. */
const manyCommands = 50
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
    const count = this.queues[lane]!.push(command)
    // a microtask later, so that appends of other fibers in this turn of the event loop go into the same statement
    if (count === 1 || count === manyCommands) queueMicrotask(() => this.flush(lane % pairCount))
  }
  /** Takes a command out that was not sent yet. */
  remove(command: W): void {
    const queue = this.queues[command.row.partition % laneCount]!
    const at = queue.indexOf(command)
    if (at >= 0) queue.splice(at, 1)
  }
  /** Sends what waits in a pair's lanes that have no statement under way. */
  private flush(pair: number): void {
    const lanes = [pair, pair + pairCount]
    const waiting = lanes.filter((lane) => this.queues[lane]!.length > 0)
    const isMany = (lane: number) => this.queues[lane]!.length >= manyCommands
    if (lanes.some((lane) => this.busy[lane])) {
      // the statement under way is that of the other lane: a lane in which few commands wait shares the next one with it
      for (const lane of waiting) if (this.busy[lane] === false && isMany(lane)) void this.run(pair, [lane])
    } else if (waiting.some(isMany)) for (const lane of waiting) void this.run(pair, [lane])
    else if (waiting.length > 0) void this.run(pair, waiting)
  }
  private async run(pair: number, lanes: ReadonlyArray<number>): Promise<void> {
    const { rest, taken } = takeStatement(lanes.flatMap((lane) => this.queues[lane]!))
    const left = new Set(rest)
    for (const lane of lanes) {
      this.busy[lane] = true
      this.queues[lane] = this.queues[lane]!.filter((command) => left.has(command))
    }
    await this.send(taken)
    for (const lane of lanes) this.busy[lane] = false
    this.flush(pair)
  }
}
