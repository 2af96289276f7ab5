// The errors of a system, beside those of its parts. A field `try` says what to do.
import * as Data from "effect/Data"

/** An environment variable is missing or has a value that makes no sense. The message names the variable. */
export class InvalidEnvironment extends Data.TaggedError("InvalidEnvironment")<{
  readonly message: string
  readonly try?: string
}> {}

/** The topics on Kafka do not fit the application, so it cannot run on them. */
export class TopicsNotReady extends Data.TaggedError("TopicsNotReady")<{
  readonly message: string
  readonly try: string
}> {}

/** The file of a bridge's rules does not exist, does not load, or has no bridge. Rules that make no sense fail with `InvalidBridge` instead. */
export class BridgeRulesError extends Data.TaggedError("BridgeRulesError")<{
  readonly message: string
  readonly try: string
}> {}

/** A partition of a projection, or a relay, is halted, so waiting for it makes no sense. */
export class SystemHalted extends Data.TaggedError("SystemHalted")<{ readonly message: string }> {}

/** The database belongs to another application, is a copy of another database, or is not prepared for the application. */
export class ForeignDatabase extends Data.TaggedError("ForeignDatabase")<{
  readonly message: string
  readonly try: string
}> {}

/** The database has the log of topics that the application now reads from Kafka, where they are empty. */
export class LogNotMoved extends Data.TaggedError("LogNotMoved")<{
  readonly message: string
  readonly try: string
}> {}

/** Declarations of an aggregate cannot read events that are stored. The message names the event types. */
export class UnreadableHistory extends Data.TaggedError("UnreadableHistory")<{
  readonly message: string
  readonly try: string
}> {}

/** A projection cannot be paused or resumed as asked. */
export class PauseRefused extends Data.TaggedError("PauseRefused")<{
  readonly message: string
  readonly try: string
}> {}

/** A command needs a database that exists, and there is none. */
export class NoDatabase extends Data.TaggedError("NoDatabase")<{
  readonly message: string
  readonly try: string
}> {}

/** A projection or a version cannot be retired as things are. */
export class NotRetired extends Data.TaggedError("NotRetired")<{
  readonly message: string
  readonly try: string
}> {}

/** Events about a subject are of other tenants as well. Nothing was changed, and nothing printed. */
export class SharedSubject extends Data.TaggedError("SharedSubject")<{
  readonly message: string
  readonly try: string
}> {}

/** A projection has no build that could be compared with its live one, or promoted. */
export class NoCandidate extends Data.TaggedError("NoCandidate")<{
  readonly message: string
  readonly try: string
}> {}

/** A follower did not reach the positions of the live build. Nothing was changed. */
export class NotCaughtUp extends Data.TaggedError("NotCaughtUp")<{
  readonly message: string
  readonly try: string
  /** Whether more time could help. Otherwise something must be done first. */
  readonly timedOut: boolean
}> {}

/** A projection cannot be rebuilt as it was asked, or not at all. Nothing was changed. */
export class RebuildRefused extends Data.TaggedError("RebuildRefused")<{
  readonly message: string
  readonly try: string
}> {}

/** A rebuild ended before its build was where the live one is: it was cancelled, or is halted. */
export class RebuildStopped extends Data.TaggedError("RebuildStopped")<{
  readonly message: string
  readonly try: string
}> {}

/** A build cannot be promoted as things are, or its promotion did not succeed in time. Nothing was changed. */
export class NotPromoted extends Data.TaggedError("NotPromoted")<{
  readonly message: string
  readonly try: string
  /** Whether more time could help. Otherwise something must be done first. */
  readonly timedOut: boolean
}> {}

/** The switch of a promotion was sent, and it is not known whether it was made. */
export class PromotionUnknown extends Data.TaggedError("PromotionUnknown")<{
  readonly message: string
  readonly try: string
}> {}

/** Corrections of a promotion cannot be published as things are. */
export class NotCorrected extends Data.TaggedError("NotCorrected")<{
  readonly message: string
  readonly try: string
}> {}

/** A request names a projection, a build or a read model that does not exist. `try` names similar ones. */
export class UnknownName extends Data.TaggedError("UnknownName")<{
  readonly message: string
  readonly try?: string
}> {}

/** A request makes no sense as it is. */
export class InvalidOperation extends Data.TaggedError("InvalidOperation")<{
  readonly message: string
  readonly try?: string
}> {}

/** A build was promoted, and its corrections are not published. */
export class PromotedWithoutCorrections extends Data.TaggedError("PromotedWithoutCorrections")<{
  readonly message: string
  readonly try: string
}> {}

/** A row cannot be explained as things are. */
export class NotExplained extends Data.TaggedError("NotExplained")<{
  readonly message: string
  readonly try: string
}> {}

/** No event concerns the row that is to be explained, and there is no such row. `try` names keys next to it. */
export class UnknownRow extends Data.TaggedError("UnknownRow")<{
  readonly message: string
  readonly try?: string
}> {}
