// Arguments that a parser of flags would misread. Pure.

/** Whether an argument looks like a flag and cannot be one: no name of a flag has a space. A comment of SQL, `-- …`, is such an argument. */
const isStatement = (argument: string): boolean => /^-[^=]*\s/.test(argument)
/** The flags of `millrace sql` that take the next argument as their value. */
const takesValue = new Set(["--data", "--format"])

/** The arguments of `millrace sql` with a space in front of a statement that begins with a comment, so that it is not taken for a flag. */
export const withStatements = (given: ReadonlyArray<string>): ReadonlyArray<string> => {
  const end = given.indexOf("--")
  return given.map((argument, i) =>
    isStatement(argument) && !takesValue.has(given[i - 1] ?? "") && (end < 0 || i < end) ? ` ${argument}` : argument
  )
}
