// What a bridge stream stores as metadata beside its offset on Kafka, within the 4,096 bytes that Kafka takes. Pure.
import { formatPosition, type PulsarPosition } from "./pulsar-position.ts"

/** So many positions fit. A partition on Pulsar whose position is dropped is scanned from its beginning. */
const maxPositions = 64

/** Eight hex digits for a name (FNV-1a): a short key where many names are stored together. */
export const shortName = (name: string): string => {
  let hash = 0x811c9dc5
  for (let i = 0; i < name.length; i++) hash = Math.imul(hash ^ name.charCodeAt(i), 0x01000193)
  return (hash >>> 0).toString(16).padStart(8, "0")
}

/** Positions by the short name of their partition. If there are too many, the last ones of the map. */
export const formatPositions = (positions: ReadonlyMap<string, PulsarPosition>): Record<string, string> =>
  Object.fromEntries(
    [...positions].slice(-maxPositions).map(([partition, position]) => [shortName(partition), formatPosition(position)])
  )

/** The metadata's fields; none if the text is not an object in JSON. */
export const parseMetadata = (text: string): Readonly<Record<string, unknown>> => {
  try {
    const found = JSON.parse(text) as unknown
    return typeof found === "object" && found !== null ? (found as Readonly<Record<string, unknown>>) : {}
  } catch {
    return {}
  }
}
