-- For wrk: `-- alert PREFIX` sends an alert of its own with every request; without arguments it is a plain GET.
-- Ends with one line of JSON, times in microseconds. Meant for one thread.
local main_thread

-- Answers to alerts by status; `done` reads them out of the thread.
accepted, unavailable, other = 0, 0, 0

function setup(thread)
  main_thread = thread
end

function init(args)
  if args[1] ~= "alert" then
    return
  end
  local form = '{"symbol":"BTCUSDT","action":"buy","price":"67250.5","order_id":"%s-%d"}'
  local count = 0
  wrk.method = "POST"
  wrk.headers["Content-Type"] = "application/json"

  request = function()
    count = count + 1
    wrk.body = string.format(form, args[2], count)
    return wrk.format()
  end

  response = function(status)
    if status == 202 then
      accepted = accepted + 1
    elseif status == 503 then
      unavailable = unavailable + 1
    else
      other = other + 1
    end
  end
end

function done(summary, latency)
  local errors = summary.errors
  local broken = errors.connect + errors.read + errors.write + errors.timeout
  io.write(string.format(
    'result {"requests": %d, "duration_us": %d, "p50_us": %d, "p99_us": %d, "bad_status": %d, "broken": %d, ' ..
    '"accepted": %d, "unavailable": %d, "other": %d}\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99), errors.status, broken,
    main_thread:get("accepted"), main_thread:get("unavailable"), main_thread:get("other")))
end
