// Where a position token starts the records of a topic: at what follows the write that was answered with it. Pure.
import * as Schema from "effect/Schema"
import { counted } from "../text/counted.ts"
import { shown } from "../text/text.ts"
import type { PartitionBounds, Position } from "./log.ts"
import { parseToken, type TokenPosition } from "./position-token.ts"

/** A token does not start the records of a topic. `not_yet`: it may later. */
export class TokenRefused extends Schema.TaggedError<TokenRefused>()("TokenRefused", {
  reason: Schema.Literals(["no_token", "other_topic", "unknown_partition", "position_gone", "not_yet"]),
  text: Schema.String,
  /** What to do. */
  advice: Schema.String
}) {
  override get message() {
    return this.text
  }
}
/** What to do where a token does not start a topic. */
export const otherStarts = "start at earliest, at latest or at a time"

/** Where the records of a topic start. */
export interface TokenStart {
  /** Of each partition, in order: the position that the token names; undefined if it names none of this partition. */
  readonly positions: ReadonlyArray<Position | undefined>
  /** What was written before these positions: partitions without one start at what the log stored since then. */
  readonly writes: ReadonlyArray<TokenPosition>
}

/** The names of a few topics, for a message. */
const listed = (topics: ReadonlyArray<string>): string =>
  topics.length > 5 ? `${topics.slice(0, 5).map(shown).join(", ")}, …` : topics.map(shown).join(", ")

/**
 * The positions of a token that count for a topic, each partition's last one: those in the topic itself, or, if there are none, those in the
 * topics that it is derived from.
 */
export const countingPositions = (
  token: string,
  topic: string,
  derivedFrom: ReadonlySet<string>
): ReadonlyArray<TokenPosition> | TokenRefused => {
  const all = parseToken(token)
  if (all === undefined)
    return new TokenRefused({
      reason: "no_token",
      text: `${shown(token)} is no position token`,
      advice: "use the token of an answer to events or commands, as it was"
    })
  const own = all.filter((one) => one.topic === topic)
  const counting = own.length > 0 ? own : all.filter((one) => derivedFrom.has(one.topic))
  if (counting.length === 0) {
    const topics = [...new Set(all.map((one) => one.topic))]
    const named = topics.length === 0 ? "names no position" : `is for ${listed(topics)}`
    const sources = derivedFrom.size === 0 ? "" : ` or for what it is derived from (${listed([...derivedFrom])})`
    return new TokenRefused({
      reason: "other_topic",
      text: `the token ${named}, and ${topic} starts at a token for itself${sources}`,
      advice: topics.length === 0 ? otherStarts : `read a topic that the token is for, or ${otherStarts}`
    })
  }
  const last = new Map<string, TokenPosition>()
  for (const one of counting) {
    const place = `${one.partition}/${one.topic}`
    if ((last.get(place)?.position ?? -1) < one.position) last.set(place, one)
  }
  return [...last.values()]
}

/**
 * Where positions of a token start the records of a topic: in the partitions that they name, at them, so after what was written. The other
 * partitions, and all of a topic that is derived from theirs, start at what the log stored since the write. `bounds`: those of the topic and of
 * every topic that the positions name.
 */
export const tokenStart = (
  counting: ReadonlyArray<TokenPosition>,
  topic: string,
  bounds: ReadonlyMap<string, ReadonlyArray<PartitionBounds>>
): TokenStart | TokenRefused => {
  const positions: Array<Position | undefined> = (bounds.get(topic) ?? []).map(() => undefined)
  for (const one of counting) {
    const partitions = bounds.get(one.topic) ?? []
    const found = partitions.find(({ partition }) => partition === one.partition)
    if (found === undefined)
      return new TokenRefused({
        reason: "unknown_partition",
        text: `the token names partition ${one.partition} of ${one.topic}, which has ${counted(partitions.length, "partition")}`,
        advice: "use a token of this system"
      })
    const { end, start } = found
    const has = `${one.topic}/${one.partition} has positions ${start} to ${end}, and the token is for position ${one.position}`
    if (one.position > end)
      return new TokenRefused({
        reason: "not_yet",
        text: has,
        advice: "try again, and check that the token is of this system"
      })
    if (one.topic !== topic) continue
    if (one.position < start) return new TokenRefused({ reason: "position_gone", text: has, advice: otherStarts })
    positions[one.partition] = one.position
  }
  return { positions, writes: counting }
}
