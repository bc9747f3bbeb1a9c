package io.camserve.client;

import io.camserve.v1.CancelJobRequest;
import io.camserve.v1.GetJobRequest;
import io.camserve.v1.Job;
import io.camserve.v1.JobEvent;
import io.camserve.v1.JobItem;
import io.camserve.v1.JobServiceGrpc;
import io.camserve.v1.ListJobResultsRequest;
import io.camserve.v1.ListJobResultsResponse;
import io.camserve.v1.StreamEvent;
import io.camserve.v1.WatchJobRequest;
import java.time.Duration;
import java.util.ArrayList;
import java.util.EnumSet;
import java.util.List;
import java.util.Optional;
import java.util.Set;
import java.util.function.Consumer;

/** A job that was accepted. It goes on whatever becomes of this object. */
public final class JobHandle {
    /** A hundred years: {@link #await} returns when the job has ended, however long that takes. */
    public static final Duration WITHOUT_END = Duration.ofDays(36_500);

    private static final int PAGE = 200;
    private static final Set<Job.Status> FINAL =
            EnumSet.of(Job.Status.succeeded, Job.Status.failed, Job.Status.canceled, Job.Status.expired);

    private final Calls calls;
    private final String id;

    JobHandle(Calls calls, String id) {
        this.calls = calls;
        this.id = id;
    }

    /** Returns the job's id. */
    public String id() {
        return id;
    }

    /** Returns the job as it is now; throws CamserveException ({@code job.not_found}). */
    public Job info() {
        return info(calls.timeout);
    }

    /**
     * Returns the job once it has ended, one way or another; {@code onChange} is told of every change of its state.
     *
     * <p>Follows the stream of its events, and asks now and then where no stream comes through. Throws
     * CamserveException: {@code timeout.exceeded} after {@code timeout}, {@code job.not_found}.
     */
    public Job await(Duration timeout, Consumer<Job> onChange) {
        return CallbackException.unwrapped(() -> ended(timeout, onChange));
    }

    /**
     * Returns every image in the order of the request, finished or not; throws CamserveException ({@code
     * job.results_expired}) when the time of the job is over.
     */
    public List<JobItem> results() {
        List<JobItem> items = new ArrayList<>();
        ListJobResultsRequest.Builder request =
                ListJobResultsRequest.newBuilder().setJobId(id).setLimit(PAGE);
        do {
            ListJobResultsResponse page = calls.unary(JobServiceGrpc.getListJobResultsMethod(), request.build());
            items.addAll(page.getItemsList());
            request.setCursor(page.getPage().getNextCursor());
        } while (!request.getCursor().isEmpty());
        return items;
    }

    /** Cancels the job; throws CamserveException ({@code job.already_completed}) when it ended otherwise. */
    public Job cancel() {
        CancelJobRequest request = CancelJobRequest.newBuilder().setJobId(id).build();
        return calls.unary(JobServiceGrpc.getCancelJobMethod(), request);
    }

    private Job ended(Duration timeout, Consumer<Job> onChange) {
        WatchJobRequest request = WatchJobRequest.newBuilder().setJobId(id).build();
        Retries.Tries tries = calls.retries.started(timeout);
        Job[] ended = new Job[1];
        while (true) {
            CamserveException broken = new CamserveException(
                    CamserveException.CONNECTION_FAILED, 0, "The stream ended early.", null);
            try {
                calls.<WatchJobRequest, JobEvent>stream(
                        JobServiceGrpc.getWatchJobMethod(), request, Optional.of(tries.left()), event -> {
                            if (event.hasError()) {
                                throw Refusals.of(event.getError());
                            }
                            tries.forget();
                            if (event.hasJob()) {
                                CallbackException.guard(onChange, event.getJob());
                            }
                            if (event.getEvent() == StreamEvent.Kind.done) {
                                ended[0] = event.getJob();
                            }
                        });
            } catch (CamserveException refused) {
                broken = refused;
            }
            if (ended[0] == null) {
                tries.pauseAfter(broken);
                Job asked = info(tries.left());
                CallbackException.guard(onChange, asked);
                ended[0] = FINAL.contains(asked.getStatus()) ? asked : null;
            }
            if (ended[0] != null) {
                return ended[0];
            }
        }
    }

    private Job info(Duration within) {
        GetJobRequest request = GetJobRequest.newBuilder().setJobId(id).build();
        return calls.unary(JobServiceGrpc.getGetJobMethod(), request, within);
    }
}
