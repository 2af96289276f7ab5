// The order of commands in a statement that expects all of them to pass. Pure.

/** A command of a batch, as far as its order goes. */
interface BatchCommand {
  readonly topicId: number
  readonly stream: string
  readonly partition: number
  readonly commandId: string
  readonly follows: string | null
  /** How many events it has. */
  readonly records: number
}
/** Where the events of a command are among those of a batch. */
export interface InBatch {
  /** How many events of the batch come before them in their stream, and in their partition. */
  readonly inStream: number
  readonly inPartition: number
  /** How many events the batch has of their stream, and of their partition. */
  readonly ofStream: number
  readonly ofPartition: number
}
/** How the commands of a batch follow one another in their streams and partitions, if all of them pass. */
export const sequence = (rows: ReadonlyArray<BatchCommand>): ReadonlyArray<InBatch> => {
  const [streams, partitions] = [new Map<string, number>(), new Map<string, number>()]
  const add = (sums: Map<string, number>, key: string, n: number) => {
    const before = sums.get(key) ?? 0
    sums.set(key, before + n)
    return before
  }
  const streamOf = ({ stream, topicId }: BatchCommand) => `${topicId} ${stream}`
  const partitionOf = ({ partition, topicId }: BatchCommand) => `${topicId} ${partition}`
  const befores = rows.map((row) => ({
    inStream: add(streams, streamOf(row), row.records),
    inPartition: add(partitions, partitionOf(row), row.records)
  }))
  return rows.map((row, i) => ({
    ...befores[i]!,
    ofStream: streams.get(streamOf(row))!,
    ofPartition: partitions.get(partitionOf(row))!
  }))
}
/** Whether all commands of a batch may pass: what one follows, if anything, is the one before of its stream. */
export const mayAllPass = (rows: ReadonlyArray<BatchCommand>): boolean => {
  const last = new Map<string, string>()
  return rows.every(({ commandId, follows, stream, topicId }) => {
    const key = `${topicId} ${stream}`
    const isNext = follows === null || follows === last.get(key)
    last.set(key, commandId)
    return isNext
  })
}
