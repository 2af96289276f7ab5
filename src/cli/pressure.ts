// What a gateway says while the database is behind or its disk is nearly full.
import type { DatabasePressure } from "../system/pressure.ts"
import type { Pressure, PressureParts } from "../server/http/pressure.ts"

/** A database that is behind for so long gets no more commands, in milliseconds. */
const behindMs = 5_000

const mebibytes = (bytes: number) => Math.floor(bytes / 1_048_576)
const diskOf = ({ freeBytes }: DatabasePressure): Pressure | undefined =>
  freeBytes === undefined
    ? undefined
    : {
        code: "disk_full",
        message: `the disk of the database has ${mebibytes(freeBytes)} MiB left`,
        try: "free space there; then send the request again"
      }
const databaseOf = ({ behindMs: behind }: DatabasePressure): Pressure | undefined =>
  behind < behindMs
    ? undefined
    : {
        code: "overloaded",
        message: `the database is behind: a query has waited for ${Math.floor(behind / 1_000)} s`,
        try: "send the request again after Retry-After seconds"
      }

/** What keeps a gateway from taking events and commands. `logIsHere`: the database has the log, too. */
export const pressureParts = (read: () => DatabasePressure, logIsHere: boolean): PressureParts => {
  const both = () => {
    const found = read()
    return diskOf(found) ?? databaseOf(found)
  }
  return { commands: both, events: logIsHere ? both : () => undefined }
}
