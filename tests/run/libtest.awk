# Reads the output of `cargo test … --show-output`. Prints `passed failed skipped`; with -v list=1 one line for each
# failed, ignored or skipped test. A test that printed `SKIP name: why` and returned is skipped, not passed.
function name_it(text) { if (list) print text }
/^running [0-9]+ tests?$/ { section = ""; test = "" }
/^successes:$/ { section = "passed"; test = "" }
/^failures:$/ { section = "failed"; test = "" }
/^---- .* stdout ----$/ { test = $2; next }
/^test .* \.\.\. ignored/ {
    why = $0
    sub(/^.* \.\.\. ignored(, )?/, "", why)
    if (why ~ /^long:/) name_it("not part of make test: " $2 " (make test-long; " substr(why, 7) ")")
    else { ignored++; name_it("SKIP " $2 ": " (why == "" ? "ignored without a reason" : why)) }
}
/^test .* \.\.\. FAILED$/ { name_it("FAILED " $2) }
/^(test [^ ]+ \.\.\. )?SKIP [^:]+: ./ && section != "failed" {
    line = $0
    sub(/^test [^ ]+ \.\.\. /, "", line)
    name_it(line)
    # Several lines of one test are one skipped test; outside a test's own section each line stands for itself.
    if (section == "" || !(test in seen)) skips++
    if (section != "") seen[test] = 1
}
/^test result: / {
    match($0, /[0-9]+ passed/); passed += substr($0, RSTART, RLENGTH) + 0
    match($0, /[0-9]+ failed/); failed += substr($0, RSTART, RLENGTH) + 0
    for (t in seen) delete seen[t]
}
END { if (!list) print passed - skips + 0, failed + 0, skips + ignored + 0 }
