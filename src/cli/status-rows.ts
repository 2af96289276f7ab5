// Joins the partitions of a projection, of which nothing has to be said, into one row of the status. Pure.
import type { PartitionStatus } from "../system/status.ts"

/** A row of the status: a partition, or partitions of one build and topic with the totals of their positions and ends. */
export interface StatusRow extends Pick<
  PartitionStatus,
  | "name"
  | "version"
  | "declared"
  | "topic"
  | "position"
  | "end"
  | "lag"
  | "oldest_ms"
  | "stream_time"
  | "mode"
  | "removed"
  | "halted"
> {
  /** The partitions, such as `3` or `0-2,5`. */
  readonly partitions: string
  /** The epochs of their claims, such as `4` or `3-7`. */
  readonly epochs: string
}

/** `0-2,5`: the numbers in order, those without a gap as a range. */
const rangesOf = (numbers: ReadonlyArray<number>): string => {
  const ranges: Array<[first: number, last: number]> = []
  for (const number of numbers.toSorted((a, b) => a - b)) {
    const range = ranges.at(-1)
    if (range !== undefined && number === range[1] + 1) range[1] = number
    else ranges.push([number, number])
  }
  return ranges.map(([first, last]) => (first === last ? String(first) : `${first}-${last}`)).join(",")
}
const sum = (numbers: ReadonlyArray<number>) => numbers.reduce((total, number) => total + number, 0)

/** Nothing waits and nothing is wrong, so that the partition differs from others of its build only by its numbers. */
const isQuiet = ({ halted, lag, waiting }: PartitionStatus) => halted === null && waiting === null && lag === 0
const rowOf = (partitions: ReadonlyArray<PartitionStatus>): StatusRow => {
  const epochs = partitions.map(({ epoch }) => epoch)
  const [least, most] = [Math.min(...epochs), Math.max(...epochs)]
  const times = partitions.flatMap(({ stream_time }) => stream_time ?? [])
  return {
    ...partitions[0]!,
    partitions: rangesOf(partitions.map(({ partition }) => partition)),
    position: sum(partitions.map(({ position }) => position)),
    end: sum(partitions.map(({ end }) => end)),
    epochs: least === most ? String(least) : `${least}-${most}`,
    stream_time: times.length === 0 ? null : Math.max(...times)
  }
}

/**
 * The rows of the status. Partitions of one build and topic that are up to date, wait for nothing and are claimed by the same process share a
 * row, unless `all` is true. The row has the latest of their stream times.
 */
export const statusRows = (partitions: ReadonlyArray<PartitionStatus>, all: boolean): ReadonlyArray<StatusRow> =>
  [
    ...Map.groupBy(partitions, (one) => {
      const { claimed_by, mode, name, partition, removed, topic, version } = one
      const apart = all || !isQuiet(one) ? partition : null
      return JSON.stringify([name, version, topic, mode, removed, apart === null ? claimed_by : null, apart])
    }).values()
  ].map(rowOf)
